"""Classes that come with the stages: loss and prediction run over those known, against formulas written out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import Tensor

from ftk import UserError
from ftk.parts import Batch, Context
from ftk.testing import toy_context, toy_task
from ftk_plugins.objectives.classification.classification import Classification
from ftk_plugins.objectives.classification.options import ClassificationOptions
from ftk_plugins.objectives.image_classification.image_classification import ImageClassification
from ftk_plugins.objectives.image_classification.options import ImageClassificationOptions
from ftk_plugins.objectives.incremental import cross_entropy, predicted
from tests.plugins.objectives.pictures import ROWS, processor, vit

LABELS = ("dot", "bar", "cup", "ring", "cross")
LOGITS = torch.tensor([[3.0, 1.0, 0.5, 9.0, 2.0], [0.0, 2.0, -1.0, 4.0, 1.0]])


def objective(*taught: str, **options: Any) -> ImageClassification:
    return ImageClassification(
        ImageClassificationOptions(labels=LABELS, incremental=True, taught=taught or None, **options)
    )


def at(stage: int, model: Any, **changes: Any) -> Context:
    """The context of the first stage, which teaches `dot` and `bar`, or of the second, which teaches `cup`."""
    first = toy_task(ROWS[:2], objective("dot", "bar"), processor=processor())
    second = replace(toy_task(ROWS[:1], objective("cup"), processor=processor()), name="second")
    ctx = toy_context(model, first.objective, **changes)
    task, earlier = (first, ()) if stage == 1 else (second, (first,))
    return replace(ctx, task=task, earlier=earlier)


@pytest.mark.parametrize("known", [(0, 1, 2), (0, 3), None])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_over_the_known_classes_and_moves_no_other(known: tuple[int, ...] | None, smoothing: float) -> None:
    logits = LOGITS.clone().requires_grad_()
    weights = torch.tensor([1.0, 2.0, 0.5, 3.0, 1.0])
    labels = torch.tensor([0, 0])
    cross_entropy(logits, labels, known, weights, smoothing).backward()
    columns = list(known or range(5))
    plain = LOGITS.clone().requires_grad_()
    nats = -plain[:, columns].log_softmax(1)
    right = weights[0] * nats[:, 0]
    spread = (nats * weights[columns]).sum(1) / len(columns)
    ((1 - smoothing) * right + smoothing * spread).sum().backward()
    torch.testing.assert_close(logits.grad, plain.grad)
    others = [index for index in range(5) if index not in columns]
    assert torch.equal(logits.grad[:, others], torch.zeros(2, len(others)))  # type: ignore[index]


def test_a_class_that_is_not_known_is_never_predicted() -> None:
    found = predicted(LOGITS, (0, 1, 2))
    assert found.argmax(1).tolist() == [0, 1]
    assert torch.equal(found[:, :3], LOGITS[:, :3]), "logits of the others are what they were, to the bit"
    assert found.softmax(1)[:, 3:].sum() == 0
    assert torch.isfinite(found).all()
    assert predicted(LOGITS, None) is LOGITS


@pytest.mark.parametrize(("stage", "columns"), [(1, [0, 1]), (2, [0, 1, 2])])
def test_what_is_known_follows_from_the_stages_until_now(stage: int, columns: list[int]) -> None:
    model = vit(num_labels=5)
    ctx = at(stage, model)
    one = objective("dot", "bar")
    rows = [row for row in ROWS if row["label"] in ("dot", "bar")]
    batch = one.collate(one.encode_batch(rows, processor()))
    logits: Tensor = model(pixel_values=batch.inputs["pixel_values"]).logits
    expected = -logits[:, columns].log_softmax(1).gather(1, batch.inputs["labels"][:, None]).sum()
    torch.testing.assert_close(one.loss(model, batch, ctx).total, expected)
    torch.testing.assert_close(one.loss(model, batch, ctx).outputs["logits"], logits)
    assert one.known(ctx.earlier) == (None if stage == 1 else (0, 1))
    values = one.predict(model, batch, ctx).values
    assert set(values.argmax(1).tolist()) <= set(columns)


def test_before_any_stage_and_without_the_option_all_compete() -> None:
    model = vit(num_labels=5)
    before = replace(at(1, model), task=None)
    assert objective("dot").known((*before.earlier, *before.taught)) is None
    plain = ImageClassification(ImageClassificationOptions(labels=LABELS))
    assert plain.known((*at(2, model).earlier,)) is None


def test_the_training_rows_tell_what_a_stage_teaches() -> None:
    rows = Dataset.from_list([{"label": "cup", "text": "a"}, {"label": "dot", "text": "b"}])
    assert objective().completed(rows) == {"taught": ("dot", "cup")}
    assert objective("ring").completed(rows) == {}
    texts = Classification(ClassificationOptions(labels=LABELS, incremental=True))
    assert texts.completed(rows) == {"taught": ("dot", "cup")}
    assert texts.head == Classification(ClassificationOptions(labels=LABELS)).head
    with pytest.raises(UserError, match="label `sun` is none"):
        texts.completed(Dataset.from_list([{"label": "sun", "text": "a"}]))
    with pytest.raises(UserError, match="no column `label`"):
        texts.completed(Dataset.from_list([{"text": "a"}]))


def test_a_row_of_a_class_that_is_not_known_is_refused_in_training() -> None:
    model = vit(num_labels=5)
    one = objective()
    batch = Batch({"pixel_values": torch.zeros(1, 3, 8, 8), "labels": torch.tensor([4])}, 1, 1)
    with pytest.raises(UserError, match="a label that its stage does not teach"):
        one.loss(model, batch, at(2, model))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"labels": None}, "`incremental` needs `labels`"),
        ({"taught": ("sun",)}, "`taught` names sun, not among"),
        ({"incremental": False, "taught": ("dot",)}, "`taught` goes with"),
        ({"class_weights": "balanced"}, "needs rows of every label"),
        ({"kind": "multiple"}, 'goes with kind = "single"'),
    ],
)
def test_what_does_not_go_together_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ClassificationOptions(**{"labels": LABELS, "incremental": True, **options})
    assert "target-sampling" in ClassificationOptions(labels=LABELS, incremental=True).withheld()
    assert "target-sampling" in objective().options.withheld()
