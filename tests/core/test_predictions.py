"""Predictions of all test rows: in the order of the rows, whatever the batches and the processes, and once."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ftk import Options, RunFailed, UserError
from ftk.parts import Batch, Context, Evaluator, Predictions, Task, gathered, predictions
from ftk.testing import toy_context, toy_examples, toy_task
from tests.points import LABELS, ROWS, Numbers, Points, logits, model

PAGE = Path(__file__).parents[2] / "docs" / "write-a-plugin.md"


def context(found: nn.Module, **changes: Any) -> Context:
    return toy_context(found, Points(), **changes)


@pytest.mark.parametrize("batch", [1, 4, 100])
def test_they_stand_in_the_order_of_the_rows(batch: int) -> None:
    linear = model()
    found = predictions(toy_task(ROWS, Points()), linear, context(linear, micro_batch_size=batch))
    torch.testing.assert_close(found.values, logits(linear))
    assert found.references.tolist() == [row["label"] for row in ROWS]
    assert (found.kind, found.labels) == ("classes", LABELS)
    assert found.rows is not None
    assert found.rows.tolist() == list(range(len(ROWS)))


def test_every_process_gets_those_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    linear, task = model(), toy_task(ROWS, Points())
    told: list[list[Predictions]] = []

    def record(found: list[Any], own: list[Predictions]) -> None:
        told.append(own)
        found[:] = [own] * len(found)

    monkeypatch.setattr(torch.distributed, "all_gather_object", record)
    for rank in range(3):
        predictions(task, linear, context(linear, micro_batch_size=3, rank=rank, world_size=3))
    assert [sum(len(piece.values) for piece in own) for own in told] == [5, 3, 3]

    def meet(found: list[Any], own: list[Predictions]) -> None:
        found[:] = told

    monkeypatch.setattr(torch.distributed, "all_gather_object", meet)
    found = predictions(task, linear, context(linear, micro_batch_size=3, world_size=3))
    torch.testing.assert_close(found.values, logits(linear))
    assert found.references.tolist() == [row["label"] for row in ROWS]


def test_what_processes_gather_is_one_list() -> None:
    assert gathered([1, 2], context(model())) == [1, 2]


def test_they_are_made_once_in_a_measurement() -> None:
    linear, calls = model(), []
    linear.register_forward_pre_hook(lambda *_: calls.append(1))
    task, ctx = toy_task(ROWS, Points()), context(linear, micro_batch_size=100, shared={})
    assert predictions(task, linear, ctx) is predictions(task, linear, ctx)
    assert len(calls) == 1
    predictions(replace(task, test=toy_examples(ROWS[:2], Points())), linear, ctx)  # a probe is another set of rows
    assert len(calls) == 2


class Doubled(Points):
    """Two predictions of each row, as of a text with two words."""

    def predict(self, model: nn.Module, batch: Batch, ctx: Context) -> Predictions:
        one = super().predict(model, batch, ctx)
        rows = torch.arange(len(one.values)).repeat(2)
        return replace(one, values=one.values.repeat(2, 1), references=one.references.repeat(2), rows=rows)


def test_a_row_may_have_several() -> None:
    linear = model()
    found = predictions(toy_task(ROWS, Doubled()), linear, context(linear))
    torch.testing.assert_close(found.values, logits(linear).repeat_interleave(2, 0))
    assert found.rows is not None
    assert found.rows.tolist() == [row for row in range(len(ROWS)) for _ in range(2)]


def test_numbers_come_with_their_references() -> None:
    linear = model(2)
    found = predictions(toy_task(ROWS, Numbers()), linear, context(linear))
    assert found.references.tolist() == [row["target"] for row in ROWS]
    assert found.values.dtype == found.references.dtype == torch.float32


def test_a_model_that_has_diverged_fails_the_run() -> None:
    linear = model()
    nn.init.constant_(linear.weight, float("nan"))
    with pytest.raises(RunFailed, match="task `toy`: what the model predicts of toy is not finite"):
        predictions(toy_task(ROWS, Points()), linear, context(linear))


def test_a_task_without_test_rows_is_an_error() -> None:
    linear = model()
    with pytest.raises(UserError, match="task `toy` has no test rows"):
        predictions(Task("toy", Points(), toy_examples(ROWS, Points())), linear, context(linear))


def test_the_f1_of_the_docs_is_right() -> None:
    (listing,) = re.findall(r"^```python\n(from torch import nn.*?class MacroF1.*?)^```", PAGE.read_text(), re.S | re.M)
    names: dict[str, Any] = {}
    exec(listing, names)
    evaluator: Evaluator = names["MacroF1"](Options())
    linear = model()
    (metric,) = evaluator.measure(linear, toy_task(ROWS, Points()), context(linear))
    guessed, right = logits(linear).argmax(1).tolist(), [row["label"] for row in ROWS]
    scores = []
    for label in range(3):
        hits = sum(g == r == label for g, r in zip(guessed, right, strict=True))
        precision, recall = hits / max(1, guessed.count(label)), hits / max(1, right.count(label))
        scores.append(0.0 if hits == 0 else 2 * precision * recall / (precision + recall))
    assert metric.value == pytest.approx(sum(scores) / 3)
    assert 0 < metric.value < 1
