"""Adaptations made of PEFT's layers: drift, chain rule, scaling and export against PEFT's own merge in float64."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

from ftk.parts import ComputedDrift
from tests.plugins.adaptations.effective import (
    MODELS,
    TOKENS,
    attached,
    merged_by_peft,
    shake,
    weights_of,
)

CHOICES: dict[str, tuple[str, dict[str, Any]]] = {
    "dora": ("dora", {"rank": 4, "alpha": 6}),
    "dora-rslora": ("dora", {"rank": 4, "alpha": 6, "rslora": True, "dropout": 0.5, "targets": ["q_proj", "c_*"]}),
    "ia3": ("ia3", {}),
    "ia3-outputs": ("ia3", {"targets": "all-linear", "feedforward": []}),
}
BY_PEFT: dict[str, dict[str, Any]] = {
    **{
        method: {}
        for method in (
            "beft", "deft", "delora", "frod", "glora", "gralora", "hira", "oft", "osf", "peanut", "pvera", "randlora",
            "supertuning", "tinylora",
        )
    },
    **{method: {"r": 4} for method in ("hra", "loha", "lokr", "miss", "psoft", "shira")},
    **{method: {"n_frequency": 40} for method in ("fourierft", "waveft")},
    "boft": {"boft_block_size": 4},
    "c3a": {"block_size": 8},
    "road": {"group_size": 8},
    "vera": {"r": 8},
}  # fmt: skip
"""Options at which a method fits a toy model."""

METHODS = sorted(set(BY_PEFT) & {kind.value.lower() for kind in PEFT_TYPE_TO_TUNER_MAPPING})
"""Those of them that the installed PEFT has."""

CASES = [
    *(
        pytest.param(kind, *choice, id=f"{name}-{kind}")
        for name, choice in CHOICES.items()
        for kind in (("gpt2",) if name == "dora-rslora" else ("llama", "gpt2"))
    ),
    *(
        pytest.param("llama", "peft", {"method": one, "config": BY_PEFT[one]}, id=one)
        for one in METHODS
        if one not in ("beft", "glora", "road")
    ),
    *(
        pytest.param("gpt2", "peft", {"method": one, "config": BY_PEFT[one]}, id=f"{one}-gpt2")
        for one in ("fourierft", "vera")
    ),
    *(
        pytest.param("biased", "peft", {"method": one, "config": BY_PEFT[one]}, id=f"{one}-biased")
        for one in ("beft", "glora", "road")
    ),
]


def fitting(options: dict[str, Any], kind: str) -> dict[str, Any]:
    """The options, with targets that the model has."""
    if isinstance(targets := options.get("targets"), list):
        return {**options, "targets": [name for name in targets if ("proj" in name) == (kind == "llama")]}
    return options


@pytest.mark.parametrize(("kind", "use", "options"), CASES)
def test_drift_is_the_merged_weight_minus_the_start(kind: str, use: str, options: dict[str, Any]) -> None:
    plain = MODELS[kind]()
    adaptation, model = attached(use, copy.deepcopy(plain), **fitting(options, kind))
    torch.testing.assert_close(model(TOKENS).logits, plain(TOKENS).logits, atol=2e-6, rtol=0)
    assert max(rows.abs().max() for rows in weights_of(adaptation).values()) < 1e-6
    shake(model)
    drifts, merged = adaptation.drift(), merged_by_peft(model, wide=True)
    assert drifts
    for name, start in plain.named_parameters():
        moved = merged[name] - start.double()
        if name not in drifts:
            assert moved.abs().max() == 0, name
            continue
        drift = drifts[name]
        assert torch.equal(drift.weight, start), "the base is never touched"
        assert moved.abs().max() > 1e-4
        some = slice(2, 11)
        torch.testing.assert_close(drift.rows(2, 11), moved[some].float(), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("kind", "use", "options"), [case for case in CASES if case.id != "osf"])
def test_the_chain_rule_is_the_derivative_of_pefts_merge(kind: str, use: str, options: dict[str, Any]) -> None:
    """But under ``osf``, whose gradients are projected: ``test_peft_methods`` holds that."""
    adaptation, model = attached(use, MODELS[kind](), **fitting(options, kind))
    shake(model)
    drifts = adaptation.drift()
    generator = torch.Generator().manual_seed(2)
    slopes = {name: torch.randn(drift.shape, generator=generator) for name, drift in drifts.items()}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    along = [torch.randn(parameter.shape, generator=generator) for parameter in trained]
    for name, drift in drifts.items():
        for start, stop in drift.chunks(200):
            drift.pull_back(start, stop, slopes[name][start:stop])
    found = sum((p.grad.double() * d.double()).sum() for p, d in zip(trained, along, strict=True) if p.grad is not None)

    values, step, kept = [], 1e-4, [parameter.detach().clone() for parameter in trained]
    for sign in (1, -1):
        for parameter, value, direction in zip(trained, kept, along, strict=True):
            parameter.data = value.double() + sign * step * direction.double()
        merged = merged_by_peft(model, wide=True)
        values.append(sum((merged[name] * slope.double()).sum() for name, slope in slopes.items()))
    expected = (values[0] - values[1]) / (2 * step)
    rough = options.get("method") in ("deft", "fourierft", "peanut")  # they jump, or merge in float32 whatever is asked
    assert float(found) == pytest.approx(float(expected), rel=1e-2 if rough else 1e-4)
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad and p.grad is not None}
    assert not frozen


@pytest.mark.parametrize(("kind", "use", "options"), CASES)
def test_a_share_of_the_drift_is_that_of_the_weights(
    kind: str, use: str, options: dict[str, Any], tmp_path: Path
) -> None:
    plain = MODELS[kind]()
    adaptation, model = attached(use, copy.deepcopy(plain), **fitting(options, kind))
    shake(model)
    trained, whole = model(TOKENS).logits, weights_of(adaptation)
    assert not torch.allclose(trained, plain(TOKENS).logits, atol=1e-3)
    between = copy.deepcopy(plain)
    merged = merged_by_peft(model)
    with torch.no_grad():
        for name, weight in between.named_parameters():
            weight += 0.4 * (merged[name] - weight)

    for alpha in (0.7, 0.0, 1.0, 0.4):
        adaptation.scale(alpha)
        for name, rows in weights_of(adaptation).items():
            torch.testing.assert_close(rows, alpha * whole[name], atol=1e-6, rtol=1e-5)
        if alpha in (0, 1):
            assert torch.equal(model(TOKENS).logits, trained if alpha else plain(TOKENS).logits)
    torch.testing.assert_close(model(TOKENS).logits, between(TOKENS).logits, atol=3e-6, rtol=1e-5)
    with torch.no_grad(), adaptation.reference():
        assert torch.equal(model(TOKENS).logits, plain(TOKENS).logits)
    told = adaptation.export(tmp_path)
    assert told is not None
    assert "0.4 of what" in told
    assert not list(tmp_path.iterdir()), "no adapter says what the weights are"
    torch.testing.assert_close(adaptation.merge()(TOKENS).logits, between(TOKENS).logits, atol=3e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("use", "options"),
    [("dora", {"dropout": 0.5}), ("ia3", {}), ("lora", {"modules_to_save": ["mlp"]}), ("peft", {"method": "oft"})],
)
def test_the_reference_may_be_asked_while_a_graph_is_open(use: str, options: dict[str, Any]) -> None:
    """As an objective does that compares with the starting model in every batch."""
    plain = MODELS["llama"]()
    _, model = adapted = attached(use, copy.deepcopy(plain), **options)
    shake(model)
    gradients = []
    for asked in (False, True):
        torch.manual_seed(3)
        loss = model.train()(TOKENS, labels=TOKENS).loss
        if asked:
            with torch.no_grad(), adapted[0].reference():
                assert torch.equal(model.eval()(TOKENS).logits, plain(TOKENS).logits)
        model.zero_grad()
        loss.backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert gradients[0]
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


@pytest.mark.parametrize(("kind", "use", "options"), CASES)
def test_the_export_loads_in_plain_peft(kind: str, use: str, options: dict[str, Any], tmp_path: Path) -> None:
    plain = MODELS[kind]()
    adaptation, model = attached(use, copy.deepcopy(plain), **fitting(options, kind))
    shake(model)
    adaptation.scale(0.5)
    adaptation.scale(1.0)
    assert adaptation.export(tmp_path) is None
    loaded = PeftModel.from_pretrained(copy.deepcopy(plain), tmp_path / "adapter").eval()
    torch.testing.assert_close(loaded(TOKENS).logits, model(TOKENS).logits, atol=3e-6, rtol=1e-5)
    assert {path.name for path in (tmp_path / "adapter").iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors",
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("init", ["kaiming", "pissa"])
def test_the_closed_form_of_lora_is_the_general_one(kind: str, init: str) -> None:
    adaptation, model = attached("lora", MODELS[kind](), rank=4, init=init)
    shake(model)
    for name, drift in adaptation.drift().items():
        layer = model.get_submodule(name.removesuffix(".weight"))
        base = layer.get_base_layer().weight

        def effective(start: int, stop: int, layer: Any = layer, base: Any = base) -> torch.Tensor:
            return (base + sum(layer.get_delta_weight(one) for one in layer.active_adapters))[start:stop]

        general = ComputedDrift(base, effective, list(layer.parameters()), by_rows=False)
        torch.testing.assert_close(drift.rows(3, 15), general.rows(3, 15), atol=1e-6, rtol=1e-5)
        slope, pulled = torch.randn(12, drift.shape[1]), []
        for one in (drift, general):
            model.zero_grad()
            one.pull_back(3, 15, slope)
            pulled.append([p.grad.clone() for p in layer.parameters() if p.grad is not None])
        assert len(pulled[0]) == 2
        torch.testing.assert_close(pulled[0], pulled[1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("use", ["dora", "ia3"])
def test_narrow_models_have_float32_adapters_and_drifts(use: str) -> None:
    adaptation, model = attached(use, MODELS["llama"]().to(torch.bfloat16))
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    shake(model)
    trained = model(TOKENS).logits
    assert all(rows.dtype == torch.float32 for rows in weights_of(adaptation).values())
    merged = adaptation.merge()
    assert {p.dtype for p in merged.parameters()} == {torch.bfloat16}
    torch.testing.assert_close(merged(TOKENS).logits.float(), trained.float(), atol=0.03, rtol=0.05)
