"""Holds the images of `augment` to Pillow's and torch's own operations."""

from __future__ import annotations

import sys
from random import Random

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Image, Value
from PIL import Image as Picture
from PIL import ImageEnhance, ImageOps

from ftk.errors import UserError
from ftk.testing import Subject
from ftk_plugins.transforms.augment import images
from ftk_plugins.transforms.augment.options import AugmentOptions
from tests.plugins.transforms.applying import apply, told

OFF = {"flip": 0.0, "crop": 1.0, "jitter": 0.0}


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """An image of smooth colours, ``(24, 32, 3) uint8``."""
    noise = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(Picture.fromarray(noise).resize((32, 24), Picture.Resampling.BILINEAR))


class Fixed(Random):
    """Draws what it is told, one number after another."""

    def __init__(self, *drawn: float) -> None:
        super().__init__(0)
        self.drawn = list(drawn)

    def uniform(self, a: float, b: float) -> float:
        assert a <= self.drawn[0] <= b
        return self.drawn.pop(0)


def made(pixels: np.ndarray, count: int = 200, **options: float) -> list[np.ndarray]:
    chosen = AugmentOptions(columns=["image"], **{**OFF, **options})
    return [images.changed(pixels, chosen, Random(n)) for n in range(count)]


def test_a_flip_mirrors_as_pillow_does_and_as_often_as_asked(photo: np.ndarray) -> None:
    mirrored = np.asarray(ImageOps.mirror(Picture.fromarray(photo)))
    found = made(photo, flip=0.25)
    flips = sum(np.array_equal(image, mirrored) for image in found)
    assert flips + sum(np.array_equal(image, photo) for image in found) == 200
    assert 30 < flips < 75
    assert all(np.array_equal(image, mirrored) for image in made(photo, 10, flip=1.0))


@pytest.mark.parametrize("size", [(24, 32), (50, 31), (13, 17)])
def test_resizing_is_torchs(photo: np.ndarray, size: tuple[int, int]) -> None:
    pixels = torch.tensor(photo, dtype=torch.float64).permute(2, 0, 1)[None]
    reference = torch.nn.functional.interpolate(pixels, size, mode="bilinear", align_corners=False)[0].permute(1, 2, 0)
    np.testing.assert_allclose(images.resized(photo.astype(float), *size), reference.numpy(), atol=1e-9)


def test_crops_are_parts_of_the_size_asked_for(monkeypatch: pytest.MonkeyPatch, photo: np.ndarray) -> None:
    areas, ratios = [], []

    def noted(part: np.ndarray, height: int, width: int) -> np.ndarray:
        areas.append(part.shape[0] * part.shape[1] / photo[..., 0].size)
        ratios.append(part.shape[1] / part.shape[0])
        assert (height, width) == photo.shape[:2]
        return np.zeros((height, width, 3))

    monkeypatch.setattr(images, "resized", noted)
    made(photo, 300, crop=0.5)
    assert 0.45 < min(areas) < 0.55
    assert max(areas) > 0.9
    assert 0.7 < min(ratios) < 0.9
    assert 1.2 < max(ratios) < 1.45


def test_a_crop_shows_its_part_enlarged(photo: np.ndarray) -> None:
    part = images.cropped(photo.astype(float), 0.3, Random(3))
    assert part.shape == photo.shape
    assert not np.allclose(part, photo)
    line = np.tile(np.arange(32.0), (24, 1))
    enlarged = images.cropped(line, 0.3, Random(3))
    steps = np.diff(enlarged[0])
    assert steps.max() < 1, "a ramp rises more slowly once it is enlarged"
    assert enlarged.min() >= 0
    assert enlarged.max() <= 31


@pytest.mark.parametrize("factor", [0.6, 0.85, 1.3])
def test_brightness_contrast_and_saturation_are_pillows(photo: np.ndarray, factor: float) -> None:
    picture = Picture.fromarray(photo)
    for place, enhance in enumerate((ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)):
        factors = [1.0, 1.0, 1.0]
        factors[place] = factor
        ours = images.jittered(photo.astype(float), 0.4, 255.0, Fixed(*factors))
        reference = np.asarray(enhance(picture).enhance(factor)).astype(float)
        # Pillow's greys are whole numbers, and so is what it gives.
        assert np.abs(ours - reference).max() <= 2
    everything = images.jittered(photo.astype(float), 0.4, 255.0, Fixed(factor, factor, factor))
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        picture = enhance(picture).enhance(factor)
    assert np.abs(everything - np.asarray(picture).astype(float)).max() <= 5


def test_jitter_goes_so_far_and_leaves_opacity_alone(photo: np.ndarray) -> None:
    grey = np.full((4, 4), 100, np.uint8)
    found = {int(image[0, 0]) for image in made(grey, 400, jitter=0.2)}
    assert min(found) in (80, 81)
    assert max(found) in (119, 120)
    clear = np.concatenate([photo, np.full((24, 32, 1), 77, np.uint8)], axis=2)
    assert all((image[..., 3] == 77).all() and image.dtype == np.uint8 for image in made(clear, 20, jitter=0.4))
    bright = made(np.full((4, 4, 3), 250, np.uint8), 50, jitter=0.4)
    assert max(int(image.max()) for image in bright) == 255


def picture_rows(photo: np.ndarray) -> Dataset:
    features = Features({"image": Image(), "label": Value("int64")})
    rows = [{"image": Picture.fromarray(photo), "label": 0}, {"image": Picture.fromarray(photo[..., 0]), "label": 1}]
    return Dataset.from_list([*rows, {"image": None, "label": 2}], features=features)


def test_rows_with_pictures_get_copies_that_are_pictures(photo: np.ndarray) -> None:
    rows, effects = apply("augment", picture_rows(photo), columns=["image"], copies=2)
    assert [row["label"] for row in rows] == [0, 0, 0, 1, 1, 1, 2]
    assert told(effects) == {"made changed copies": 4}
    assert [row["image"] and (row["image"].mode, row["image"].size) for row in rows] == [
        *[("RGB", (32, 24))] * 3, *[("L", (32, 24))] * 3, None,
    ]  # fmt: skip
    assert np.array_equal(np.asarray(rows[0]["image"]), photo)
    assert len({row["image"].tobytes() for row in rows[:3]}) == 3
    mirrored, _ = apply("augment", picture_rows(photo), **{**OFF, "columns": ["image"], "copies": 1, "flip": 1.0})
    assert np.array_equal(np.asarray(mirrored[1]["image"]), photo[:, ::-1])


def test_rows_with_numbers_get_copies_of_their_type() -> None:
    digit = [[0.0, 4.0, 16.0], [2.0, 8.0, 1.0]]
    options = {**OFF, "columns": ["pixels"], "copies": 1}
    rows, _ = apply("augment", [{"pixels": digit}, {"pixels": None}], **{**options, "flip": 1.0})
    assert [row["pixels"] for row in rows] == [digit, [line[::-1] for line in digit], None]
    whole, _ = apply("augment", [{"pixels": [[[9, 8, 7], [0, 1, 2]]]}], **{**options, "flip": 1.0})
    assert whole[1]["pixels"] == [[[0, 1, 2], [9, 8, 7]]]
    jittered, _ = apply("augment", [{"pixels": digit}] * 30, **{**options, "jitter": 0.5})
    values = [value for row in jittered for line in row["pixels"] for value in line]
    assert min(values) >= 0
    assert max(values) == 16.0


@pytest.mark.parametrize("pixels", [[[1, 2], [3]], [[-1.0, 2.0]], [[[[1]]]]])
def test_what_is_no_image_is_told(pixels: list) -> None:
    with pytest.raises(UserError, match="column `pixels` holds what is no image"):
        apply("augment", [{"pixels": pixels}], columns=["pixels"])


def test_images_need_something_to_do_and_pillow(photo: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="nothing is left to do with images"):
        apply("augment", picture_rows(photo), columns=["image"], **OFF)
    module = sys.modules["ftk_plugins.transforms.augment.augment"]
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"and Pillow is not installed\n  pip install 'finetune-toolkit\[images\]'"):
        apply("augment", picture_rows(photo), columns=["image"])


def test_a_picture_and_its_caption_are_changed_together(photo: np.ndarray) -> None:
    features = Features({"image": Image(), "text": Value("string")})
    rows = Dataset.from_list([{"image": Picture.fromarray(photo), "text": "a blue square"}], features=features)
    transform = Subject("transform", "augment", {"columns": ["image", "text"], "copies": 1, "deletion": 0.0}).build()
    after = transform.apply(rows)
    assert after.features == features
    assert sorted(after[1]["text"].split()) == ["a", "blue", "square"] != after[1]["text"].split()
    assert not np.array_equal(np.asarray(after[1]["image"]), photo)
