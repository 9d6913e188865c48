"""Fisher information in factors: against dense sums, loops over rows, explicit Kronecker products, and autograd."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ftk import RunFailed
from ftk.parts import Context
from ftk.testing.toys import toy_model
from ftk_plugins.adaptations.full.full import FullTuning
from ftk_plugins.adaptations.full.options import FullOptions
from ftk_plugins.adaptations.lora.lora import Lora
from ftk_plugins.adaptations.lora.options import LoraOptions
from ftk_plugins.mitigations import pieces
from ftk_plugins.mitigations.ewc import margins, sums
from ftk_plugins.mitigations.ewc.ewc import Ewc
from ftk_plugins.mitigations.ewc.options import EwcOptions
from tests.plugins.mitigations.brute_force import TEXTS, all_weights, estimate, gpt2, llama, qwen3, text_task
from tests.plugins.mitigations.ewc_stage import fisher_of, pulled, remembered, stage, task, wander


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("by_positions", [True, False], ids=["positions", "pieces"])
@pytest.mark.parametrize("make", [llama, gpt2, qwen3])
def test_factors_are_the_row_and_column_sums_of_the_diagonal(
    make: Callable[[], nn.Module], by_positions: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(margins, "_cheaper_by_positions", lambda outer: by_positions)
    model, events = make(), []
    dense = estimate(model, all_weights(model))
    found = estimate(model, all_weights(model), kind="factored", events=events)
    assert not [event for event in events if event.kind == "warning"]
    assert found.trace == pytest.approx(dense.trace, rel=1e-5)
    size = 0
    for name, diagonal in dense.parts.items():
        if diagonal.ndim == 1:
            torch.testing.assert_close(found.parts[name], diagonal)
        else:
            torch.testing.assert_close(found.parts[name + "/rows"], diagonal.sum(1), rtol=1e-3, atol=1e-6)
            torch.testing.assert_close(found.parts[name + "/columns"], diagonal.sum(0), rtol=1e-3, atol=1e-6)
            size += sum(diagonal.shape)
    assert sum(part.numel() for name, part in found.parts.items() if "/" in name) == size


@pytest.mark.parametrize("make", [llama, gpt2])
def test_kronecker_factors_are_second_moments_over_rows_and_positions(make: Callable[[], nn.Module]) -> None:
    model = make()
    kinds = (nn.Linear, Conv1D)
    layers = {n: m for n, m in model.named_modules() if isinstance(m, kinds) and n != "lm_head"}
    found = estimate(model, all_weights(model), kind="kfac")
    seen: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in layers}
    given: dict[str, tuple[Tensor, Tensor]] = {}
    for name, module in layers.items():
        module.register_forward_hook(lambda m, args, out, name=name: given.update({name: (args[0], out)}))
    for item in text_task().train.encoded:
        ids = torch.as_tensor(item["input_ids"].astype("int64"))[None]
        loss = nn.functional.cross_entropy(model(input_ids=ids).logits[0, :-1], ids[0, 1:], reduction="sum")
        gradients = torch.autograd.grad(loss, [given[name][1] for name in layers])
        for name, gradient in zip(layers, gradients, strict=True):
            seen[name].append((given[name][0][0].detach(), gradient[0]))
    checked = 0
    for name, module in layers.items():
        x, g = (torch.cat([pair[side] for pair in seen[name]]).double() for side in (0, 1))
        active = [bool(g[t].any()) for t in range(len(g))]
        a = sum(torch.outer(x[t], x[t]) for t in range(len(x)) if active[t]) / sum(active)
        h = sum(torch.outer(g[t], g[t]) for t in range(len(g))) / len(TEXTS)
        rows, columns = (a, h) if isinstance(module, Conv1D) else (h, a)
        key = f"{name}.weight"
        if key + "/rows" in found.parts:
            explicit = torch.kron(rows, columns)
            kept = torch.kron(found.parts[key + "/rows"].double(), found.parts[key + "/columns"].double())
            kept /= found.parts[key + "/rows"].double().trace()
            assert float((kept - explicit).norm() / explicit.norm()) < 1e-4
            checked += 1
    assert checked >= 4


def test_what_has_no_kronecker_factors_is_held_by_its_diagonal(monkeypatch: pytest.MonkeyPatch) -> None:
    model = llama()
    dense, found = (estimate(model, all_weights(model), kind=kind).parts for kind in ("diagonal", "kfac"))
    plain = {name for name in found if "/" not in name}
    assert {"model.embed_tokens.weight", "model.norm.weight"} <= plain
    for name in plain:
        torch.testing.assert_close(found[name], dense[name])
    monkeypatch.setattr(sums, "LARGEST_FACTORS", 2.1)
    assert "model.layers.0.mlp.up_proj.weight" in estimate(model, all_weights(model), kind="kfac").parts


def dense(ewc: Ewc, name: str, weight: Tensor) -> Tensor:
    """F of one weight as an explicit ``mn × mn`` matrix, in the order of ``weight.flatten()``."""
    fisher = fisher_of(ewc)
    if name in fisher:
        return torch.diag(fisher[name].double().flatten())
    rows, columns = (fisher[f"{name}/{side}"].double() for side in ("rows", "columns"))
    rows, columns = (torch.diag(each) if each.ndim == 1 else each for each in (rows, columns))
    return torch.kron(rows, columns) / rows.trace()


LORA: dict[str, tuple[Callable[[], nn.Module], dict[str, Any]]] = {
    "plain": (toy_model, {"targets": ("q_proj", "v_proj", "up_proj")}),
    "nonzero_start": (toy_model, {"init": "pissa", "targets": ("k_proj", "o_proj")}),
    "gpt2_nonzero_start": (gpt2, {"init": "milora", "rslora": True}),
}


@pytest.mark.parametrize("kind", ["factored", "alone", "kfac"])
@pytest.mark.parametrize(("make", "options"), LORA.values(), ids=LORA)
def test_the_closed_form_under_lora_is_the_gradient_of_the_dense_penalty(
    make: Callable[[], nn.Module], options: dict[str, Any], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "alone":  # weights too large to be taken together
        monkeypatch.setattr(pieces, "CPU_CHUNK_ELEMENTS", 1)
        kind = "factored"
    ctx = stage(Lora(LoraOptions(rank=2, **options)), make())
    ewc = remembered(ctx, strength=70, fisher=kind)
    start = {name: delta.detach().double() for name, delta in displacement(ctx).items()}
    wander(ctx.model)
    penalty = torch.zeros((), dtype=torch.float64)
    for name, moved in displacement(ctx).items():
        d = (moved.double() - start[name]).flatten()
        penalty = penalty + 70 / 2 * d @ dense(ewc, name, moved) @ d
    trainable = {name: p for name, p in ctx.model.named_parameters() if p.requires_grad}
    expected = torch.autograd.grad(penalty, list(trainable.values()))
    found = pulled(ewc, ctx)
    assert_near([found[name] for name in trainable], expected)
    assert sum(float(piece.cost().detach()) for piece in ewc.pieces(ctx)) == pytest.approx(
        float(penalty.detach()) / 70, rel=1e-4
    )
    assert sum(each.cost for each in ewc.weigh(ctx).values()) == pytest.approx(float(penalty.detach()) / 70, rel=1e-4)


def displacement(ctx: Context) -> dict[str, Tensor]:
    """The effective weight change by PEFT's own reckoning, with its graph."""
    layers = {n: m for n, m in ctx.model.named_modules() if hasattr(m, "get_delta_weight")}
    return {
        f"{name}.weight": sum(module.get_delta_weight(adapter) for adapter in module.active_adapters)
        for name, module in layers.items()
    }


@pytest.mark.parametrize("chunk", [64, 1 << 18])
@pytest.mark.parametrize("kind", ["factored", "kfac"])
def test_the_pull_under_full_tuning_is_the_gradient_of_the_dense_penalty(
    kind: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "CPU_CHUNK_ELEMENTS", chunk)
    ctx = stage(FullTuning(FullOptions()), toy_model())
    ewc = remembered(ctx, strength=700, fisher=kind)  # well above the rounding of the gradients it is added to
    start = {name: parameter.detach().clone() for name, parameter in ctx.model.named_parameters()}
    wander(ctx.model)
    found, cost = pulled(ewc, ctx), 0.0
    small = [name for name, parameter in ctx.model.named_parameters() if parameter.numel() <= 32 * 64]
    for name in small:
        d = (ctx.model.get_parameter(name).detach() - start[name]).double().flatten()
        force = 700 * dense(ewc, name, start[name]) @ d
        cost += float(force @ d) / 1400
        assert_near([found[name].flatten()], [force])
    weighed = ewc.weigh(ctx)
    assert sum(weighed[name].cost for name in small) == pytest.approx(cost, rel=1e-4)
    matrices = 14 if kind == "kfac" else 15  # the table of tokens is no linear layer's
    assert ewc.report()["forms"] == {"diagonal": 20 - matrices, kind: matrices}
    assert ewc.report()["guarded_weights"] == sum(p.numel() for p in ctx.model.parameters())


def assert_near(found: Any, expected: Any) -> None:
    size = torch.cat([value.flatten().double() for value in expected])
    error = torch.cat([(one - other).double().flatten() for one, other in zip(found, expected, strict=True)])
    assert float(size.norm()) > 1e-4
    assert float(error.norm() / size.norm()) < 1e-4


@pytest.mark.parametrize("kind", ["factored", "kfac"])
def test_over_every_steps_each_factor_is_pulled_once(kind: str) -> None:
    ctx = stage()
    exact = remembered(ctx, strength=0.7, fisher=kind)
    wander(ctx.model)
    whole = pulled(exact, ctx)
    rare = Ewc(EwcOptions.model_validate({"strength": 0.7, "fisher": kind, "every": 3}))
    rare.load_state_dict(exact.state_dict())
    rare.begin(ctx)
    parts = [pulled(rare, replace(ctx, step=step)) for step in range(3)]
    for name, pull in whole.items():
        torch.testing.assert_close(sum(part[name] for part in parts) / 3, pull, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(next(iter(parts[0].values())), next(iter(parts[1].values())))


@pytest.mark.parametrize("kind", ["factored", "kfac"])
def test_factors_add_up_over_tasks_and_keep_the_trace(kind: str) -> None:
    ctx = stage()
    alone = [fisher_of(remembered(ctx, each, fisher=kind)) for each in (task("a"), task("b", 6))]
    both = fisher_of(remembered(ctx, task("a"), task("b", 6), fisher=kind, gamma=0.5))
    for name, found in both.items():
        torch.testing.assert_close(found, 0.5 * alone[0][name] + alone[1][name])
    size = sum(parameter.numel() for name, parameter in ctx.model.named_parameters() if "base_layer.weight" in name)
    totals = [v.sum() if v.ndim == 1 else v.trace() for name, v in alone[0].items() if not name.endswith("/columns")]
    assert float(sum(totals)) == pytest.approx(size, rel=1e-4)


@pytest.mark.parametrize("adaptation", [FullTuning(FullOptions()), Lora(LoraOptions(rank=4))], ids=["full", "lora"])
@pytest.mark.parametrize("kind", ["diagonal", "factored", "kfac"])
def test_bfloat16_holds_matrices_in_half_the_memory(kind: str, adaptation: Any) -> None:
    ctx = stage(adaptation)
    exact, short = (
        remembered(ctx, task("a"), task("b", 6), fisher=kind, dtype=dtype) for dtype in ("float32", "bfloat16")
    )
    for name, value in fisher_of(short).items():
        assert value.dtype == (torch.bfloat16 if value.ndim > 1 else torch.float32)
        noise = 0.02 * float(value.float().abs().mean())
        torch.testing.assert_close(value.float(), fisher_of(exact)[name], rtol=0.02, atol=noise)
    wander(ctx.model)
    pulls = []
    for each in (exact, short):
        torch.manual_seed(1)
        pulls.append(torch.cat([pull.flatten() for pull in pulled(each, ctx).values()]))
    error = float((pulls[1] - pulls[0]).norm() / pulls[0].norm())
    assert error == 0 if kind == "factored" else 0 < error < 0.01


def test_factors_of_another_shape_are_named() -> None:
    ewc = remembered(stage(), fisher="factored")
    with pytest.raises(RunFailed, match=r"gate_proj.weight was remembered in shape \(64, 32\)"):
        ewc.begin(stage(model=toy_model(intermediate_size=48)))


def test_a_model_that_is_taken_row_by_row_has_factors_too_and_no_kronecker_factors() -> None:
    class Doubling(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return 2 * super().forward(input)

    model = llama()
    odd = Doubling(32, 64, bias=False)
    odd.weight = model.model.layers[0].mlp.up_proj.weight
    model.model.layers[0].mlp.up_proj = odd
    dense = estimate(model, all_weights(model)).parts
    found = estimate(model, all_weights(model), kind="factored").parts
    name = "model.layers.0.mlp.up_proj.weight"
    torch.testing.assert_close(found[name + "/rows"], dense[name].sum(1), rtol=1e-3, atol=1e-6)
    events: list[Any] = []
    assert found.keys() != estimate(model, all_weights(model), kind="kfac", events=events).parts.keys() == dense.keys()
    assert "its diagonal is kept" in next(event.data["text"] for event in events if event.kind == "warning")
