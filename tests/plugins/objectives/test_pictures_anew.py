"""Images that training sees anew each time: as the transform changes pictures, and never where they are measured."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest
import torch

from ftk.parts.varying import varied
from ftk_plugins.objectives.image_classification.image_classification import ImageClassification
from ftk_plugins.objectives.image_classification.options import ImageClassificationOptions
from ftk_plugins.objectives.image_text_contrastive.image_text_contrastive import ImageTextContrastive
from ftk_plugins.objectives.image_text_contrastive.options import ImageTextContrastiveOptions
from ftk_plugins.objectives.pictures import pixels_of, seen_anew
from ftk_plugins.transforms.augment.images import changed
from ftk_plugins.transforms.augment.options import AugmentOptions
from tests.plugins.objectives import captions, pictures

PICTURES = [np.array(row["image"], np.uint8) for row in captions.ROWS]
IMAGES = captions.processor().image_processor


def encoded(picture: np.ndarray) -> np.ndarray:
    return pixels_of([{"image": picture}], "image", IMAGES)[0]


@pytest.mark.parametrize("options", [{"flip": 1.0}, {"crop": 0.4}, {"jitter": 0.6}, {"flip": 0.5, "crop": 0.5}])
def test_an_encoded_image_changes_as_the_picture_would(options: dict[str, Any]) -> None:
    off = {"flip": 0.0, "crop": 1.0, "jitter": 0.0}
    for number, picture in enumerate(PICTURES):
        anew = seen_anew(
            encoded(picture), ImageTextContrastiveOptions(**options), IMAGES, np.random.default_rng(number)
        )
        draw = Random(int(np.random.default_rng(number).integers(2**63)))
        expected = encoded(changed(picture, AugmentOptions(columns=["image"], **{**off, **options}), draw))
        np.testing.assert_allclose(anew, expected, atol=0.6 / 255 / min(IMAGES.image_std))
        assert anew.dtype == np.float32


def test_each_epoch_sees_another_image_and_a_measurement_the_row() -> None:
    made = ImageClassification(ImageClassificationOptions(labels=("bar", "cup", "dot"), crop=0.3))
    rows = made.encode_batch(pictures.ROWS, pictures.processor())
    view = varied(rows, made, pictures.processor())
    first, second = (view.drawn(0, np.random.default_rng(seed))["pixel_values"] for seed in (1, 2))  # type: ignore[attr-defined]
    assert np.abs(first - second).max() > 0.1
    again = view.drawn(0, np.random.default_rng(1))["pixel_values"]  # type: ignore[attr-defined]
    assert np.array_equal(first, again)
    assert np.array_equal(view[0]["pixel_values"], rows[0]["pixel_values"])


def test_both_images_of_a_mix_are_seen_anew() -> None:
    options = ImageClassificationOptions(labels=("bar", "cup", "dot"), mixup=0.5, flip=1.0)
    made = ImageClassification(options)
    one, other = made.encode_batch(pictures.ROWS[:2], pictures.processor())
    mix = made.augment(one, lambda: other, pictures.processor(), np.random.default_rng(0))
    share = float(mix["shares"][0])
    expected = share * one["pixel_values"][..., ::-1] + (1 - share) * other["pixel_values"][..., ::-1]
    np.testing.assert_allclose(mix["pixel_values"], expected, atol=1e-6)


def test_equal_images_stay_no_negatives_however_they_are_seen() -> None:
    made = ImageTextContrastive(ImageTextContrastiveOptions(flip=0.5, crop=0.5, jitter=0.4))
    rows = made.encode_batch(
        [*captions.ROWS[:3], {**captions.ROWS[3], "image": captions.ROWS[0]["image"]}], captions.processor()
    )
    anew = [
        made.augment(row, lambda: rows[0], captions.processor(), np.random.default_rng(seed))
        for seed, row in enumerate(rows)
    ]
    assert np.abs(anew[0]["pixel_values"] - anew[3]["pixel_values"]).max() > 0.1
    seen, plain = made.collate(anew).inputs, made.collate(rows).inputs
    assert torch.equal(seen["identities"], plain["identities"])
    assert not torch.equal(seen["pixel_values"], plain["pixel_values"])
