"""Full fine-tuning: which weights are trained, and exact drift, reference, scaling and restart."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from ftk import UserError
from ftk.testing.toys import toy_model
from ftk_plugins.adaptations.full.full import FullTuning
from ftk_plugins.adaptations.full.options import FullOptions
from tests.plugins.adaptations.effective import shake


def attached(model: Any = None, **options: Any) -> tuple[FullTuning, Any]:
    adaptation = FullTuning(FullOptions(**options))
    return adaptation, adaptation.attach(model if model is not None else toy_model())


def values(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.arange(3, 23).view(2, 10)


def test_it_trains_everything_once_and_leaves_the_function_as_it_is(tokens: torch.Tensor) -> None:
    plain = toy_model()
    adaptation, model = attached(copy.deepcopy(plain))
    assert torch.equal(model(tokens).logits, plain(tokens).logits)
    assert set(adaptation.drift()) == set(dict(plain.named_parameters()))
    assert "model.embed_tokens.weight" in adaptation.drift()
    assert "lm_head.weight" not in adaptation.drift(), "a tied weight counts once"
    assert all(drift.weight is model.get_parameter(name) for name, drift in adaptation.drift().items())


def test_train_and_freeze_choose_by_every_name_of_a_weight() -> None:
    adaptation, model = attached(train=("*.mlp.*", "lm_head.weight"), freeze=("*.1.*",))
    names = {"model.embed_tokens.weight"} | {
        f"model.layers.0.mlp.{part}_proj.weight" for part in ("gate", "up", "down")
    }
    assert {name for name, p in model.named_parameters() if p.requires_grad} == names
    assert set(adaptation.state_dict()) == names
    with pytest.raises(UserError, match=r"adaptation\.freeze: '\*embed_token' matches no weight"):
        attached(freeze=("*embed_token",))
    with pytest.raises(UserError, match=r"did you mean `model\.layers\.\*\.mlp\.up_proj\.weight`"):
        attached(train=("model.layers.*.mlp.up.weight",))
    with pytest.raises(UserError, match="leaves no weight to train"):
        attached(freeze=("*",))


def test_norms_and_embeddings_do_not_decay() -> None:
    adaptation, model = attached()
    decaying, still = adaptation.param_groups(model, 0.5)
    assert "weight_decay" not in decaying
    assert still["weight_decay"] == 0
    assert decaying["lr"] == still["lr"] == 0.5
    by_id = {id(parameter): name for name, parameter in model.named_parameters()}
    kinds = {"norm" if "norm" in name else name for name in (by_id[id(p)] for p in still["params"])}
    assert kinds == {"norm", "model.embed_tokens.weight"}
    assert len(still["params"]) == 6
    assert len(decaying["params"]) + len(still["params"]) == len(by_id)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("where", ["device", "cpu"])
def test_drift_is_the_difference_and_its_chain_rule_the_identity(dtype: torch.dtype, where: str) -> None:
    adaptation, model = attached(toy_model().to(dtype), start_copy=where)
    start = values(model)
    drifts = adaptation.drift()
    assert not any(drift.rows(0, drift.shape[0]).any() for drift in drifts.values())
    shake(model)
    for name, drift in drifts.items():
        expected = model.get_parameter(name).detach().float() - start[name].float()
        assert expected.any()
        assert drift.rows(1, 7).dtype == torch.float32
        assert torch.equal(drift.rows(1, 7), expected[1:7])
        gradient = torch.randn(6, *drift.shape[1:])
        drift.pull_back(1, 7, gradient)
        drift.pull_back(1, 7, gradient)
        grad = model.get_parameter(name).grad
        assert grad.dtype == dtype
        assert torch.allclose(grad[1:7].float(), 2 * gradient, rtol=1e-2 if dtype == torch.bfloat16 else 1e-6)
        assert not grad[:1].any()
        assert not grad[7:].any()


def test_a_scalar_weight_has_a_drift_of_one_row() -> None:
    model = nn.Module()
    model.temperature = nn.Parameter(torch.tensor(2.0))
    adaptation, _ = attached(model)
    with torch.no_grad():
        model.temperature += 1
    (drift,) = adaptation.drift().values()
    assert list(drift.chunks()) == [(0, 1)]
    assert drift.rows(0, 1).tolist() == [1.0]
    drift.pull_back(0, 1, torch.tensor([3.0]))
    assert model.temperature.grad == 3.0


def test_the_reference_is_the_start_and_leaves_open_graphs_valid(tokens: torch.Tensor) -> None:
    plain = toy_model()
    adaptation, model = attached(copy.deepcopy(plain))
    shake(model)
    loss = model(tokens).logits.square().mean()
    loss.backward(retain_graph=True)
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    with torch.no_grad(), adaptation.reference():
        assert torch.equal(model(tokens).logits, plain(tokens).logits)
    loss.backward()
    assert all(torch.equal(p.grad, expected[name]) for name, p in model.named_parameters())


def test_scaling_is_absolute_and_exact_at_both_ends() -> None:
    adaptation, model = attached()
    start = values(model)
    shake(model)
    end = values(model)
    for alpha in (0.25, 0.0, 1.0, 0.5, 0.25):
        adaptation.scale(alpha)
        for name, parameter in model.named_parameters():
            if alpha in (0, 1):
                assert torch.equal(parameter, end[name] if alpha else start[name])
            else:
                torch.testing.assert_close(parameter.detach(), (1 - alpha) * start[name] + alpha * end[name])


def test_restarting_gives_the_model_and_its_drift_back() -> None:
    adaptation, model = attached()
    shake(model)
    saved = {name: tensor.clone() for name, tensor in adaptation.state_dict().items()}
    resumed, again = attached()
    resumed.scale(0.0)
    resumed.load_state_dict(saved)
    assert all(torch.equal(p, model.get_parameter(name)) for name, p in again.named_parameters())
    name = "model.layers.1.mlp.up_proj.weight"
    assert torch.equal(resumed.drift()[name].rows(0, 9), adaptation.drift()[name].rows(0, 9))
    resumed.scale(1.0)
    assert torch.equal(again.get_parameter(name), saved[name]), "loading starts the scale anew"
    saved["stray"] = saved.pop(name)
    with pytest.raises(ValueError, match=rf"missing: {name}; unexpected: stray"):
        resumed.load_state_dict(saved)
    saved[name] = saved.pop("stray")[:3]
    with pytest.raises(ValueError, match=r"has shape \(3, 32\), not \(64, 32\)"):
        resumed.load_state_dict(saved)


def test_without_a_copy_what_needs_the_start_is_withheld_and_refused() -> None:
    assert FullOptions(start_copy="none").withheld() == (
        "reference", "weight-drift", "weight-scale", "layer-scale", "weight-set",
    )  # fmt: skip
    assert FullOptions().withheld() == ()
    adaptation, _ = attached(start_copy="none")
    for use in (adaptation.drift, lambda: adaptation.scale(0.5), adaptation.reference().__enter__):
        with pytest.raises(UserError, match="keeps no copy"):
            use()


def test_merging_returns_the_plain_model_as_trainable_as_it_came(tmp_path: Any) -> None:
    plain = toy_model()
    plain.model.norm.weight.requires_grad_(False)
    adaptation, model = attached(plain, freeze=("*embed_tokens*",))
    adaptation.export(tmp_path)
    assert not list(tmp_path.iterdir())
    assert adaptation.merge() is model is plain
    assert [name for name, p in plain.named_parameters() if not p.requires_grad] == ["model.norm.weight"]
