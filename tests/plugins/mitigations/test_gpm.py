"""`gpm` against the paper's algorithm by numpy's SVD, and against its promise: old inputs are answered as before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

import ftk
from ftk.parts import Context, Task
from ftk.recipe.reading import load_recipe
from ftk.testing import toy_context, toy_model, toy_rows, toy_task
from ftk_plugins.mitigations.gpm.gpm import Gpm
from ftk_plugins.mitigations.gpm.inputs import Inputs
from ftk_plugins.mitigations.gpm.spans import grown
from tests.core.loops import build
from tests.system.small import written
from tests.two_tasks import run, stream

OBJECTIVE = build("objective", "causal_lm", packing=False)


def inputs_of(seed: int, count: int = 60, width: int = 12) -> np.ndarray:
    """Inputs as columns, longer along some directions than along others."""
    random = np.random.default_rng(seed)
    return random.normal(size=(width, width)) @ np.diag(0.6 ** np.arange(width)) @ random.normal(size=(width, count))


def of_the_paper(inputs: np.ndarray, basis: np.ndarray | None, threshold: float) -> np.ndarray:
    """Section 5 and algorithm 1: singular vectors of what is not yet spanned, until enough of the norm is."""
    left = inputs if basis is None else inputs - basis @ basis.T @ inputs
    vectors, values, _ = np.linalg.svd(left, full_matrices=False)
    total, held = np.sum(inputs**2), np.sum(inputs**2) - np.sum(left**2)
    count = 0
    while held + np.sum(values[:count] ** 2) < threshold * total:
        count += 1
    return vectors[:, :count] if basis is None else np.hstack([basis, vectors[:, :count]])


@pytest.mark.parametrize("threshold", [0.6, 0.9, 0.99])
def test_the_directions_are_those_of_the_papers_decomposition(threshold: float) -> None:
    basis = expected = None
    for seed, growth in ((0, 0.0), (1, 0.005)):
        inputs = inputs_of(seed)
        moment = torch.tensor(inputs @ inputs.T)
        basis = grown(moment, basis, threshold + growth)
        expected = of_the_paper(inputs, expected, threshold + growth)
        assert basis.shape == expected.shape
        np.testing.assert_allclose((basis @ basis.T).numpy(), expected @ expected.T, atol=1e-4)
    torch.testing.assert_close(basis.T @ basis, torch.eye(basis.shape[1]), atol=1e-5, rtol=0)


def test_inputs_that_are_spanned_already_add_nothing_and_all_of_them_no_more_than_there_are() -> None:
    inputs = inputs_of(2, count=5)
    moment = torch.tensor(inputs @ inputs.T)
    basis = grown(moment, None, 1.0)
    assert basis.shape == (12, 5)
    assert grown(moment, basis, 1.0).shape == (12, 5)


def adapted(adaptation: str, model: nn.Module, **options: Any) -> tuple[Any, nn.Module]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        part = build("adaptation", adaptation, **options)
        return part, part.attach(model)


def trained(part: Gpm, ctx: Context, task: Task, steps: int = 12, **optimizer: Any) -> list[float]:
    """Some steps of AdamW on another task, with the mitigation at its stations; the losses."""
    made = torch.optim.AdamW(ctx.adaptation.param_groups(ctx.model, 1e-2), **optimizer)
    batch, losses = OBJECTIVE.collate(task.train.items), []
    for _ in range(steps):
        loss = OBJECTIVE.loss(ctx.model, batch, ctx).total / batch.count
        loss.backward()
        with torch.no_grad():
            part.edit_gradients(ctx.gradients(), ctx)
            made.step()
            made.zero_grad()
            part.after_step(ctx)
        losses.append(loss.item())
    return losses


def gpt2(tied: bool = True) -> nn.Module:
    torch.manual_seed(0)
    sizes = {"vocab_size": 260, "n_embd": 64, "n_layer": 2, "n_head": 2, "n_positions": 64, "initializer_range": 0.2}
    return GPT2LMHeadModel(GPT2Config(**sizes, tie_word_embeddings=tied, bos_token_id=1, eos_token_id=1)).eval()


def llama() -> nn.Module:
    return toy_model(hidden_size=64, tie_word_embeddings=False)


ADAPTED = {
    "full, transposed weights, tied head": ("full", gpt2, {}),
    "full": ("full", llama, {}),
    "partial": ("partial", llama, {"blocks": 1}),
    "lora": ("lora", llama, {"rank": 4}),
    "lora, transposed weights": ("lora", gpt2, {"rank": 4}),
}


@pytest.mark.parametrize("case", ADAPTED)
def test_what_was_answered_is_answered_as_before_and_new_things_are_learned(case: str) -> None:
    """With a threshold of 1 all of the old inputs are held, and AdamW with decay changes nothing that they see."""
    adaptation, make, options = ADAPTED[case]
    old = toy_task([{"text": "abc"}, {"text": "ab"}], OBJECTIVE, "old")
    new = toy_task([{"text": f"{n} xyz {n}"} for n in range(4)], OBJECTIVE, "new")
    batch = OBJECTIVE.collate(old.train.items)
    inputs = {key: value for key, value in batch.inputs.items() if key in ("input_ids", "attention_mask")}
    moved = {}
    for guarded in (True, False):
        part, model = adapted(adaptation, make(), **options)
        ctx = toy_context(model, OBJECTIVE, part, new, [old])
        with torch.no_grad():
            before = model(**inputs).logits
        gpm = build("mitigation", "gpm", threshold=1.0, samples=10)
        if guarded:
            gpm.remember(old, ctx)
            gpm.begin(ctx)
        losses = trained(gpm, ctx, new, weight_decay=0.1)
        asked = batch.inputs["labels"][:, 1:] != -100  # what nothing is to follow, the output layer is not given
        with torch.no_grad():
            moved[guarded] = (model(**inputs).logits - before)[:, :-1][asked].abs().max().item()
        assert losses[-1] < losses[0] - (0.02 if guarded else 0.3)
    assert moved[True] < 2e-3 < 0.3 < moved[False]


def test_adam_leaves_the_free_space_and_the_step_is_brought_back() -> None:
    """The gradient alone is not enough: scaled element by element, it has a part in the span again."""
    part, model = adapted("full", llama())
    old = toy_task([{"text": "abcd"}], OBJECTIVE, "old")
    new = toy_task(list(toy_rows(4)), OBJECTIVE, "new")
    ctx = toy_context(model, OBJECTIVE, part, new, [old])
    gpm = build("mitigation", "gpm", threshold=1.0)
    gpm.remember(old, ctx)
    gpm.begin(ctx)
    name = "model.layers.0.self_attn.q_proj.weight"
    basis = gpm.state_dict()["basis/" + gpm.state_dict()["basis_of"][name]]

    def within(gpm: Gpm) -> float:
        trained(gpm, ctx, new, steps=2)
        drift = part.drift()[name].rows(0, 64)
        return float((drift @ basis).norm() / drift.norm())

    assert within(gpm) < 1e-5
    gpm.after_step = lambda ctx: None  # type: ignore[method-assign]
    assert within(gpm) > 0.05


def test_layers_with_the_same_inputs_share_one_basis_and_what_it_takes_is_told() -> None:
    part, model = adapted("full", llama())
    task = toy_task(list(toy_rows(6)), OBJECTIVE, "old")
    ctx = toy_context(model, OBJECTIVE, part, None, [task])
    gpm = build("mitigation", "gpm")
    gpm.remember(task, ctx)
    state = gpm.state_dict()
    block = "model.layers.0."
    same = [[f"self_attn.{name}_proj" for name in "qkv"], ["mlp.gate_proj", "mlp.up_proj"], ["self_attn.o_proj"]]
    for names in same:
        assert len({state["basis_of"][f"{block}{name}.weight"] for name in names}) == 1
    bases = [its for name, its in state.items() if name.startswith("basis/")]
    assert len(bases) == gpm.report()["bases"] == 2 * 4 + 1, "four inputs in each block, and that of the head"
    seen = [its for name, its in state.items() if name.startswith("seen/")]
    assert gpm.report()["bytes"] == sum(its.numel() * its.element_size() for its in (*bases, *seen))
    held = [its.shape[1] / its.shape[0] for its in bases]
    assert gpm.report()["held"] == pytest.approx(sum(held) / len(held), abs=1e-4)
    assert set(state["held"]) == {name for name, p in model.named_parameters() if "norm" in name}
    tokens = {int(token) for item in task.train.items for token in item["input_ids"]}
    assert set(seen[0].nonzero().flatten().tolist()) == tokens


def test_the_inputs_are_those_that_a_layer_is_given_without_padding() -> None:
    part, model = adapted("full", llama())
    task = toy_task([{"text": "a"}, {"text": "abcdefgh"}, {"text": "xyz"}], OBJECTIVE, "old")
    gpm = build("mitigation", "gpm", threshold=1.0)
    gpm.remember(task, toy_context(model, OBJECTIVE, part, None, [task]))
    given: list[Tensor] = []
    layer = model.get_submodule("model.layers.1.mlp.down_proj")
    hook = layer.register_forward_pre_hook(lambda module, args: given.append(args[0][0].detach()))
    for item in task.train.items:
        OBJECTIVE.loss(model, OBJECTIVE.collate([item]), toy_context(model, OBJECTIVE))
    hook.remove()
    expected = of_the_paper(torch.cat(given).T.double().numpy(), None, 1 - 1e-9)
    basis = gpm.state_dict()["basis/model.layers.1.mlp.down_proj.weight"]
    assert basis.shape[1] <= expected.shape[1]
    outside = expected - basis.double().numpy() @ (basis.double().numpy().T @ expected)
    assert np.linalg.norm(outside.T @ torch.cat(given).T.double().numpy()) < 1e-2 * torch.cat(given).norm()


@pytest.mark.parametrize(
    ("options", "directions"), [({"samples": 1}, "fewer"), ({"threshold": 0.5}, "fewer"), ({}, "")]
)
def test_rows_and_threshold_say_how_much_is_held(options: dict[str, Any], directions: str) -> None:
    task = toy_task(list(toy_rows(6)), OBJECTIVE, "old")
    counts = []
    for chosen in ({}, options):
        part, model = adapted("lora", llama(), rank=2)
        gpm = build("mitigation", "gpm", **chosen)
        gpm.remember(task, toy_context(model, OBJECTIVE, part, None, [task]))
        counts.append(gpm.report()["held"])
    assert (counts[1] < counts[0]) == bool(directions)


def test_others_are_trained_where_the_recipe_says_so() -> None:
    task = toy_task(list(toy_rows(4)), OBJECTIVE, "old")
    for others, moves in (("hold", False), ("train", True)):
        part, model = adapted("full", llama())
        ctx = toy_context(model, OBJECTIVE, part, task, [task])
        gpm = build("mitigation", "gpm", others=others)
        gpm.remember(task, ctx)
        gpm.begin(ctx)
        trained(gpm, ctx, task, steps=1)
        moved = part.drift()["model.norm.weight"].rows(0, 64).abs().max() > 0
        assert bool(moved) == moves


@pytest.mark.parametrize(
    ("adaptation", "told"),
    [
        ('use = "dora"', "gpm.*needs input-subspace, which adaptation `dora` does not provide"),
        (
            'use = "lora"\ninit = "pissa"',
            "gpm.*needs input-subspace, which adaptation `lora` with these options does not provide",
        ),
    ],
)
def test_adaptations_that_cannot_stay_off_inputs_are_refused(tmp_path: Path, adaptation: str, told: str) -> None:
    text = stream('[[stage.mitigation]]\nuse = "gpm"', adaptation)
    with pytest.raises(ftk.RecipeError, match=told):
        load_recipe(written(tmp_path, text))


def test_it_keeps_the_old_task_of_a_small_stream(tmp_path: Path) -> None:
    plain, _ = run(tmp_path, "plain", stream())
    kept, told = run(tmp_path, "kept", stream('[[stage.mitigation]]\nuse = "gpm"'))
    assert told["gpm"]["tasks"] == 1
    assert 0 < told["gpm"]["held"] < 1
    assert kept[1][0] < 0.3 * plain[1][0], "the old task is kept better"
    assert kept[1][1] < 0.1 * kept[0][1], "and the new one learned"


def test_what_has_no_room_together_is_looked_at_in_several_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    task = toy_task(list(toy_rows(5)), OBJECTIVE, "old")
    found = []
    for elements in (1 << 27, 64 * 64 * 2):
        monkeypatch.setattr(Inputs.groups, "__defaults__", (elements,))
        part, model = adapted("lora", llama(), rank=2)
        gpm = build("mitigation", "gpm")
        gpm.remember(task, toy_context(model, OBJECTIVE, part, None, [task]))
        found.append(gpm.state_dict())
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        assert torch.equal(value, found[1][name]) if isinstance(value, Tensor) else value == found[1][name]
