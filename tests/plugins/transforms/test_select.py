"""The transforms that make tasks of one data set: rows by value, and pixels in another order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value
from PIL import Image as Picture

from ftk import UserError
from tests.plugins.transforms.applying import apply, told

ROWS = [{"n": n, "label": label} for n, label in enumerate(["a", "b", "a", None, "c"])]
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 4, 5)).astype(np.uint8)


def numbers(rows: Any, values: list[Any], **options: Any) -> list[int]:
    return [row["n"] for row in apply("select", rows, values=values, **options)[0]]


def test_rows_are_kept_by_their_value_in_their_order() -> None:
    kept, effects = apply("select", ROWS, values=["c", "a"])
    assert [row["n"] for row in kept] == [0, 2, 4]
    assert told(effects) == {"dropped with `b`": 1, "dropped without a value": 1}
    assert numbers([{"n": n, "kind": n % 3} for n in range(7)], [0, "2"], column="kind") == [0, 2, 3, 5, 6]


@pytest.mark.parametrize("values", [["dog"], [1]])
def test_classes_go_by_name_or_number(values: list[Any]) -> None:
    features = Features({"n": Value("int64"), "label": ClassLabel(names=["cat", "dog"])})
    assert numbers(Dataset.from_dict({"n": [0, 1, 2], "label": [1, 0, -1]}, features), values) == [0]


@pytest.mark.parametrize(
    ("rows", "options", "said"),
    [
        (ROWS, {"values": ["A"]}, "no row has `A` in column `label`"),
        (ROWS, {"values": ["a"], "column": "labels"}, "finds no column `labels`"),
        ([{"label": [1, 2]}], {"values": [1]}, "holds list values"),
        ([{"label": 0.5}], {"values": [1]}, "holds float values"),
    ],
)
def test_what_cannot_be_selected_is_told(rows: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        apply("select", rows, **options)


def permuted(images: Any, seed: int) -> np.ndarray:
    given = images if isinstance(images, Dataset) else [{"image": image.tolist(), "label": 1} for image in images]
    return np.array([row["image"] for row in apply("permute_pixels", given, seed=seed)[0]])


def test_pixels_of_all_images_go_to_the_same_places() -> None:
    places = permuted(np.arange(20).reshape(1, 4, 5), 3).reshape(-1)
    assert sorted(places) == list(range(20))
    np.testing.assert_array_equal(permuted(IMAGES, 3).reshape(3, -1), IMAGES.reshape(3, -1)[:, places])
    np.testing.assert_array_equal(permuted(IMAGES, 0), IMAGES)
    assert not np.array_equal(permuted(IMAGES, 3), permuted(IMAGES, 4))


def test_colours_stay_together_and_images_of_datasets_are_read() -> None:
    colours = np.stack([IMAGES, IMAGES // 2, IMAGES // 3], axis=-1)
    np.testing.assert_array_equal(permuted(colours, 3)[..., 0], permuted(IMAGES, 3))
    np.testing.assert_array_equal(permuted(colours, 3)[..., 1], permuted(IMAGES // 2, 3))
    stored = [{"image": Picture.fromarray(image)} for image in IMAGES]
    rows = Dataset.from_list(stored, Features({"image": Image()}))
    np.testing.assert_array_equal(permuted(rows, 3), permuted(IMAGES, 3))


@pytest.mark.parametrize(
    ("images", "said"),
    [
        ([[[1, 2]], [[1], [2]]], "row 2: an image of 2 by 1, and the first is of 1 by 2"),
        ([[[1, 2]], None], "holds what is no image"),
        (["x", "y"], "holds what is no image"),
    ],
)
def test_what_cannot_be_permuted_is_told(images: list[Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        apply("permute_pixels", [{"image": image} for image in images], seed=1)
