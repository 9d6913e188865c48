"""What may be drawn, in words: one shape in a place, or two shapes beside each other."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

SHAPES = ("circle", "square", "triangle", "diamond", "cross", "ring")
COLOURS = {
    "red": (225, 45, 45), "orange": (240, 140, 30), "yellow": (240, 225, 60), "green": (50, 175, 70),
    "cyan": (50, 205, 215), "blue": (55, 80, 230), "purple": (145, 60, 190), "pink": (245, 150, 200),
    "white": (245, 245, 245),
}  # fmt: skip
"""Red, green and blue, 0 to 255."""
SIZES = {"small": 0.08, "large": 0.15}
"""From the middle of a shape to its side, as a share of the drawing's height."""
MIDDLING = 0.17
"""The same of each of two shapes."""
NEAR, FAR = 1 / 6, 5 / 6
PLACES = {
    "at the top left": (NEAR, NEAR), "at the top": (0.5, NEAR), "at the top right": (FAR, NEAR),
    "at the left": (NEAR, 0.5), "in the middle": (0.5, 0.5), "at the right": (FAR, 0.5),
    "at the bottom left": (NEAR, FAR), "at the bottom": (0.5, FAR), "at the bottom right": (FAR, FAR),
}  # fmt: skip
"""The middle of a shape, as shares of the width from the left and of the height from the top."""
RELATIONS = {"left of": ((0.27, 0.5), (0.73, 0.5)), "above": ((0.5, 0.27), (0.5, 0.73))}
"""Where the first shape lies, and where the second."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A shape that is drawn.

    Attributes:
        shape: one of ``SHAPES``.
        colour: one of ``COLOURS``.
        radius: from its middle to its side, as a share of the drawing's height.
        middle: of the width from the left, of the height from the top.
    """

    shape: str
    colour: str
    radius: float
    middle: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Scene:
    """A drawing: its caption, what is in it, and the columns that tell of it."""

    text: str
    figures: tuple[Figure, ...]
    columns: dict[str, str]


def all_scenes(kind: str) -> list[Scene]:
    """Every scene of a kind, ``one`` or ``two``, once; in an order that looks drawn at random, always the same."""
    scenes = _single() if kind == "one" else _pairs()
    return sorted(scenes, key=lambda scene: hashlib.sha256(scene.text.encode()).digest())


def _single() -> Iterator[Scene]:
    for shape, colour, size, place in product(SHAPES, COLOURS, SIZES, PLACES):
        figure = Figure(shape, colour, SIZES[size], PLACES[place])
        columns = {"shape": shape, "colour": colour, "size": size, "place": place}
        yield Scene(f"a {size} {colour} {shape} {place}", (figure,), columns)


def _pairs() -> Iterator[Scene]:
    things = list(product(SHAPES, COLOURS))
    for (shape, colour), (other_shape, other_colour), relation in product(things, things, RELATIONS):
        if (shape, colour) == (other_shape, other_colour):
            continue
        first, second = RELATIONS[relation]
        figures = (Figure(shape, colour, MIDDLING, first), Figure(other_shape, other_colour, MIDDLING, second))
        article = "an" if colour == "orange" else "a"
        other = "an" if other_colour == "orange" else "a"
        yield Scene(
            f"{article} {colour} {shape} {relation} {other} {other_colour} {other_shape}",
            figures,
            {"relation": relation},
        )
