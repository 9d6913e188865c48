"""The objective `image_classification`: what the model sees, its loss against Transformers', its errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image

from ftk import UserError
from ftk.parts import Head, lengths_of
from ftk.testing import toy_context, toy_task
from ftk_plugins.models.scratch.options import ScratchOptions
from ftk_plugins.models.scratch.scratch import Scratch
from ftk_plugins.objectives.image_classification.image_classification import ImageClassification
from ftk_plugins.objectives.image_classification.options import ImageClassificationOptions
from tests.plugins.mitigations.brute_force import all_weights, assert_same, estimate
from tests.plugins.objectives.pictures import ROWS, processor, vit

LABELS = ("bar", "cup", "dot")
OBJECTIVE = ImageClassification(ImageClassificationOptions(labels=LABELS))


def test_a_model_sees_what_its_processor_makes_of_an_image() -> None:
    batch = OBJECTIVE.collate(OBJECTIVE.encode_batch(ROWS, processor()))
    pictures = [Image.fromarray(np.array(row["image"], np.uint8)).convert("RGB") for row in ROWS]
    torch.testing.assert_close(batch.inputs["pixel_values"], processor()(pictures, return_tensors="pt").pixel_values)
    assert batch.inputs["labels"].tolist() == [LABELS.index(row["label"]) for row in ROWS]
    assert lengths_of(toy_task(ROWS, OBJECTIVE, processor=processor()).train.encoded).tolist() == [1] * len(ROWS)


def test_images_of_datasets_and_numbers_are_the_same() -> None:
    colours = np.random.default_rng(1).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    one, other = (
        OBJECTIVE.encode({"image": image, "label": "dot"}, processor())["pixel_values"]
        for image in (colours.tolist(), Image.fromarray(colours))
    )
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("smoothing", [0.0, 0.25])
def test_the_loss_is_transformers_and_smoothed_in_training_alone(smoothing: float) -> None:
    model = vit()
    batch = OBJECTIVE.collate(OBJECTIVE.encode_batch(ROWS, processor()))
    ctx = toy_context(model, OBJECTIVE, label_smoothing=smoothing)
    with torch.no_grad():
        theirs = model(**batch.inputs)
        assert OBJECTIVE.loss(model, batch, ctx).total.item() / len(ROWS) == pytest.approx(theirs.loss.item(), rel=1e-5)
        nats = -theirs.logits.log_softmax(-1)
        right = nats.gather(1, batch.inputs["labels"][:, None]).sum()
        expected = (1 - smoothing) * right + smoothing * nats.mean(1).sum()
        trained = OBJECTIVE.loss(vit(hidden_dropout_prob=0.0).train(), batch, ctx).total
    assert trained.item() == pytest.approx(expected.item(), rel=1e-5)


def test_labels_come_from_the_training_rows() -> None:
    plain = ImageClassification(ImageClassificationOptions())
    assert plain.completed(Dataset.from_list(ROWS)) == {"labels": LABELS}
    assert OBJECTIVE.completed(Dataset.from_list(ROWS[:1])) == {}
    with pytest.raises(UserError, match="holds the label `dot` alone"):
        plain.completed(Dataset.from_list(ROWS[:1]))


def test_the_fisher_is_that_of_rows_alone() -> None:
    model, task = vit(), toy_task(ROWS, OBJECTIVE, processor=processor())
    found = estimate(model, all_weights(model), task)
    squares = {name: torch.zeros_like(weight) for name, weight in model.named_parameters()}
    for item in task.train.encoded:
        loss = OBJECTIVE.loss(model, OBJECTIVE.collate([item]), toy_context(model, OBJECTIVE)).total
        for name, gradient in zip(squares, torch.autograd.grad(loss, list(model.parameters())), strict=True):
            squares[name] += gradient**2 / len(ROWS)
    squares = {name: square for name, square in squares.items() if "key.bias" not in name and "k_proj.bias" not in name}
    assert_same({name: found.parts[name] for name in squares}, squares, 1e-4)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"label": "dot"}, "no image in column `image`; the row has `label`"),
        ({"image": ROWS[0]["image"]}, "nothing in column `label`"),
        ({"image": ROWS[0]["image"], "label": "box"}, "the label `box` is none of"),
        ({"image": "a.png", "label": "dot"}, "holds what is no image: 'a.png'"),
        ({"image": [[300, 0], [0, 0]], "label": "dot"}, "holds what is no image"),
        ({"image": [[1, 2], [3]], "label": "dot"}, "holds what is no image"),
    ],
)
def test_a_row_that_cannot_be_learned_says_why(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        OBJECTIVE.encode(row, processor())


def test_scratch_makes_a_model_of_images_with_what_feeds_it() -> None:
    options = {"architecture": "vit", "hidden_size": 16, "layers": 1, "heads": 2}
    loaded = Scratch(ScratchOptions(**options, config={"image_size": 12, "patch_size": 4})).load(
        Head("image_classification", LABELS), lambda: iter(())
    )
    features = OBJECTIVE.encode(ROWS[0], loaded.processor)
    assert features["pixel_values"].shape == (3, 12, 12)
    assert loaded.model.config.id2label == dict(enumerate(LABELS))
    assert loaded.model.vit.embeddings.patch_embeddings.num_patches == 9
    ctx = toy_context(loaded.model, OBJECTIVE)
    with torch.no_grad():
        assert torch.isfinite(OBJECTIVE.predict(loaded.model, OBJECTIVE.collate([features]), ctx).values).all()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"architecture": "llama"}, "`llama` is no plain image model"),
        ({"architecture": "vitt"}, "knows no `vitt`"),
        ({"architecture": "vit", "max_length": 10}, "max_length: it is of models of text"),
        ({"architecture": "vit", "config": {"patches": 2}}, "has no such key"),
    ],
)
def test_what_is_no_model_of_images_is_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        Scratch(ScratchOptions(**options)).load(Head("image_classification", LABELS), lambda: iter(()))
