"""The data set `drawn_shapes`: each scene once, drawn as its words say, the same on every machine."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest

from ftk_plugins.datasets.drawn_shapes.drawing import drawn
from ftk_plugins.datasets.drawn_shapes.drawn_shapes import DrawnShapes
from ftk_plugins.datasets.drawn_shapes.options import DrawnShapesOptions
from ftk_plugins.datasets.drawn_shapes.scenes import COLOURS, PLACES, SIZES, all_scenes

FILLED = {"circle": 0.785, "square": 1.0, "triangle": 0.5, "diamond": 0.5, "cross": 0.54, "ring": 0.55}
"""The share of its bounding box that a shape covers, by its geometry."""
FINE = 96


def rows(split: str = "train", **options: Any) -> list[dict[str, Any]]:
    return list(DrawnShapes(DrawnShapesOptions(**options)).rows(split))  # type: ignore[arg-type]


def seen(image: np.ndarray) -> np.ndarray:
    """Where something is drawn: what differs from the corner, which is ground."""
    away: np.ndarray = np.abs(image.astype(int) - image[0, 0].astype(int)).max(2) > 40
    return away


@pytest.mark.parametrize(("kind", "count"), [("one", 972), ("two", 5724)])
def test_every_scene_stands_there_once(kind: str, count: int) -> None:
    assert len({scene.text for scene in all_scenes(kind)}) == len(all_scenes(kind)) == count


def test_one_shape_is_drawn_as_its_words_say() -> None:
    for scene in all_scenes("one")[:80]:
        told, image = scene.columns, drawn(scene, FINE)
        there = seen(image)
        down, across = np.nonzero(there)
        height, width = np.ptp(down) + 1, np.ptp(across) + 1
        middle = (across.min() + width / 2) / FINE, (down.min() + height / 2) / FINE
        nearest = min(PLACES, key=lambda place: np.hypot(*np.subtract(PLACES[place], middle)))
        assert nearest == told["place"], scene.text
        mean = image[there].mean(0)
        assert min(COLOURS, key=lambda one: np.abs(np.subtract(COLOURS[one], mean)).sum()) == told["colour"]
        assert min(SIZES, key=lambda size: abs(2 * SIZES[size] * FINE - max(height, width))) == told["size"]
        assert there.sum() / (height * width) == pytest.approx(FILLED[told["shape"]], abs=0.07), scene.text
        hole = not there[round(middle[1] * FINE), round(middle[0] * FINE)]
        assert hole == (told["shape"] == "ring")


def test_of_two_shapes_the_first_is_left_or_above() -> None:
    for scene in all_scenes("two")[:60]:
        image = drawn(scene, FINE)
        upright = image if scene.columns["relation"] == "above" else image.transpose(1, 0, 2)
        halves = upright[: FINE // 2], upright[FINE // 2 :]
        means = [half[seen(half)].mean(0) for half in halves]
        colours = [min(COLOURS, key=lambda one: np.abs(np.subtract(COLOURS[one], mean)).sum()) for mean in means]
        first, second = scene.text.split(scene.columns["relation"])
        assert f" {colours[0]} " in first, scene.text
        assert f" {colours[1]} " in second, scene.text


def test_the_pixels_are_the_same_everywhere() -> None:
    digest = hashlib.sha256()
    for kind in ("one", "two"):
        for scene in all_scenes(kind)[:20]:
            digest.update(drawn(scene, 16).tobytes())
    assert digest.hexdigest()[:16] == "cd77bd6d9fd14107"


def test_what_is_set_aside_is_new_but_made_of_known_words() -> None:
    options = {"limit": 300, "pixels": 16, "test_fraction": 0.2}
    train, test = rows(**options), rows("test", **options)
    assert (len(train), len(test)) == (240, 60)
    assert not {row["text"] for row in train} & {row["text"] for row in test}
    words = {word for row in train for word in row["text"].split()}
    assert words >= {word for row in test for word in row["text"].split()}
    other = {row["text"] for row in rows("test", **options, seed=1)}
    assert other != {row["text"] for row in test}


def test_columns_tell_of_the_caption() -> None:
    (row,) = rows(limit=1, pixels=20)
    assert row["text"] == f"a {row['size']} {row['colour']} {row['shape']} {row['place']}"
    assert row["image"].size == (20, 20)
    (row,) = rows(scene="two", limit=1, columns={"words": "text"})
    assert row["relation"] in row["words"]
    assert set(row) == {"image", "words", "relation"}
