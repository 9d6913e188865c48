"""Rows that a step goes through and does not train on: their gradient, and a step that is what it was without them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ftk.data.batches import Batches
from ftk.parts import Context, Gradients, Mitigation, Source
from ftk.running.loop import Loop, Progress
from ftk.testing import toy_task
from tests.core.loops import build, make_loop, rows, weights
from tests.mixers import mixer_of


class Looks(Mitigation):
    """Keeps the references of every step, and says under which names it saw them."""

    def __init__(self) -> None:
        self.seen: list[dict[str, dict[str, torch.Tensor]]] = []

    def edit_gradients(self, gradients: Gradients, ctx: Context) -> None:
        self.seen.append({name: dict(its) for name, its in gradients.references.items()})


def looking(parts: dict[str, Mitigation], steps: int = 1, beside: bool = True, **options: Any) -> Loop:
    """A loop in which `looks` has two sources beside the mix, of 3 of 5 and of 2 of 2 rows, and `other` has one."""
    loop = make_loop(parts=parts, steps=steps, max_grad_norm=0, **options)
    objective, other = (build("objective", "causal_lm", packing=False, max_length=64) for _ in range(2))
    memory = toy_task(rows(9)[::-1], other).train.items
    sources = [
        Source("looks/old", memory[:5], 0.0, other, reference_rows=3),
        Source("looks/older", memory[5:7], 0.0, other, reference_rows=2),
        Source("other/old", memory[7:], 0.0, objective, reference_rows=1),
    ]
    mixer = mixer_of(toy_task(rows(40), objective).train.items, objective, sources if beside else [], 0)
    return replace(loop, batches=Batches(mixer, loop.options))


@pytest.mark.parametrize("options", [{}, {"micro_batch_size": 2}, {"precision": "fp16"}], ids=str)
def test_they_are_autograds_of_the_mean_over_the_targets_of_a_mitigations_own_sources(options: dict[str, Any]) -> None:
    looks, other = Looks(), Looks()
    loop = looking({"looks": looks, "other": other}, **options)
    loop.ctx = replace(loop.ctx, precision=loop.options.precision)
    model, expected = loop.ctx.model, {}
    for drawn in loop.batches.mixer.references(0):
        losses = [source.objective.loss(model, source.objective.collate([item]), loop.ctx) for source, item in drawn]
        mean = sum(loss.total for loss in losses) / sum(loss.count for loss in losses)
        found = torch.autograd.grad(mean, list(model.parameters()))
        expected[drawn[0][0].name] = dict(zip([name for name, _ in model.named_parameters()], found, strict=True))
    loop.train(Progress())
    assert [set(part.seen[0]) for part in (looks, other)] == [{"old", "older"}, {"old"}]
    close = {"atol": 2e-3, "rtol": 2e-2} if "precision" in options else {"atol": 1e-5, "rtol": 1e-4}
    for part, prefix in ((looks, "looks/"), (other, "other/")):
        for source, found in part.seen[0].items():
            for name, gradient in found.items():
                torch.testing.assert_close(gradient, expected[prefix + source][name], **close)


@pytest.mark.parametrize("by_source", [False, True])
def test_the_step_is_to_the_bit_what_it_is_without_them(by_source: bool) -> None:
    ends = []
    for beside in (True, False):
        loop = looking({"looks": Looks()}, 3, beside, adaptation="lora", dropout=0.1, micro_batch_size=3)
        loop.by_source = by_source
        loop.train(Progress())
        ends.append(weights(loop))
    assert torch.equal(*ends)


def test_steps_go_through_all_rows_of_a_source_before_any_comes_again() -> None:
    mixer = looking({}).batches.mixer
    drawn = [[item.origin[1] for _, item in next(mixer.references(step))] for step in range(5)]
    flat = [number for its in drawn for number in its]
    assert [sorted(flat[start : start + 5]) for start in (0, 5, 10)] == [list(range(5))] * 3
    assert flat[:5] != flat[5:10], "each time in another order"
    assert drawn[3] == [item.origin[1] for _, item in next(mixer.references(3))], "whatever came before"


def test_the_listing_of_the_docs_keeps_what_agrees_with_the_old_rows() -> None:
    page = (Path(__file__).parents[2] / "docs" / "hooks.md").read_text(encoding="utf-8")
    (listing,) = [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "class Agree" in block]
    found: dict[str, Any] = {}
    exec(listing, found)
    loop = make_loop(parts={}, steps=1)
    net = torch.nn.Linear(2, 1, bias=False)
    gradients = Gradients(net)
    net.weight.grad = torch.tensor([[1.0, -1.0]])
    gradients.keep("old")
    net.weight.grad = torch.tensor([[2.0, 3.0]])
    found["Agree"]().edit_gradients(gradients, loop.ctx)
    assert gradients["weight"].tolist() == [[2.0, 0.0]]
    (source,) = found["Agree"]().sources(replace(loop.ctx, earlier=[loop.ctx.task]))
    assert (source.share, source.reference_rows) == (0.0, 8)


def test_they_are_no_part_of_the_mix_but_of_what_a_resume_is_held_against() -> None:
    with_them, without = (looking({}, beside=beside).batches.mixer for beside in (True, False))
    assert [source.name for source in with_them.sources] == ["train"]
    assert with_them.rows_in(1) == without.rows_in(1) == 40
    assert with_them.fingerprint() != without.fingerprint()
