"""Draws a scene with NumPy: the same pixels on every machine, no two scenes quite alike in place, size and shade."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from ftk_plugins.datasets.drawn_shapes.scenes import COLOURS, Figure, Scene

FINER = 4
"""Points on which a pixel is sampled, in each direction, so that edges are smooth."""
MOVED, GROWN, SHADED = 0.02, 0.08, 18
"""How far a scene's hash moves a middle (share of the height), a radius (share of it) and a colour (of 255)."""
GROUND = (100, 130)
"""The greys of the ground: about what image processors take as zero, so that it hides no place."""


def drawn(scene: Scene, pixels: int) -> np.ndarray:
    """A scene as ``(pixels, pixels, 3) uint8``; what its words leave open follows from their hash."""
    lots = _lots(scene.text)
    at = (np.arange(pixels * FINER) + 0.5) / (pixels * FINER)
    image = np.full((pixels * FINER, pixels * FINER, 3), GROUND[0] + next(lots) * (GROUND[1] - GROUND[0]))
    for figure in scene.figures:
        x = (at[None, :] - figure.middle[0] - _spread(lots, MOVED)) / figure.radius
        y = (at[:, None] - figure.middle[1] - _spread(lots, MOVED)) / figure.radius
        grown = 1 + _spread(lots, GROWN)
        colour = [level + _spread(lots, SHADED) for level in COLOURS[figure.colour]]
        image[covered(figure, x / grown, y / grown)] = colour
    means = image.reshape(pixels, FINER, pixels, FINER, 3).mean((1, 3))
    levels: np.ndarray = np.clip(np.rint(means), 0, 255).astype(np.uint8)
    return levels


def covered(figure: Figure, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Which points a shape covers, ``(height, width) bool``; it reaches from -1 to 1 in ``x`` (to the right) and ``y``
    (downwards).
    """
    across, down = np.abs(x), np.abs(y)
    inside: np.ndarray
    match figure.shape:
        case "circle":
            inside = x**2 + y**2 <= 1
        case "ring":
            inside = (x**2 + y**2 <= 1) & (x**2 + y**2 >= 0.3)
        case "square":
            inside = np.maximum(across, down) <= 0.9
        case "diamond":
            inside = across + down <= 1.1
        case "triangle":
            inside = (y <= 0.9) & (2 * across <= y + 1.1)
        case _:
            inside = (np.minimum(across, down) <= 0.32) & (np.maximum(across, down) <= 1)
    return inside


def _lots(text: str) -> Iterator[float]:
    """Numbers of 0 to 1 that follow from a text."""
    turn = 0
    while True:
        for byte in hashlib.sha256(f"{turn} {text}".encode()).digest():
            yield byte / 255
        turn += 1


def _spread(lots: Iterator[float], most: float) -> float:
    """The next number, from ``-most`` to ``most``."""
    return most * (2 * next(lots) - 1)
