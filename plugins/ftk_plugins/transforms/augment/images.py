"""Images mirrored, cropped and tinted: the augmentation with which image classifiers are commonly trained."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import numpy as np

from ftk import UserError
from ftk_plugins.transforms.augment.options import AugmentOptions

RATIOS = (3 / 4, 4 / 3)
"""The least and the largest width over height of a crop (Szegedy et al. 2015)."""
GREY = np.array([0.299, 0.587, 0.114])
"""What red, green and blue add to the brightness (ITU-R BT.601)."""


def changed(pixels: np.ndarray, options: AugmentOptions, draw: Random) -> np.ndarray:
    """An image after all operations that the options ask for.

    Args:
        pixels: ``(height, width)`` or ``(height, width, channels)``, numbers from 0; three channels are red, green and
            blue, and a second or a fourth is the opacity.
        options: which operations, and how strong.
        draw: what is drawn from.

    Returns:
        Of the same shape and type; no value is below 0, or above 255 for bytes and the largest of the image for others.
    """
    top = 255.0 if pixels.dtype == np.uint8 else float(pixels.max())
    image = seen_anew(pixels.astype(np.float64), options.flip, options.crop, options.jitter, top, draw)
    return (np.rint(image) if np.issubdtype(pixels.dtype, np.integer) else image).astype(pixels.dtype)


def numbers_in(column: str, value: Any) -> np.ndarray:
    """What a column holds of an image, ``(height, width)`` or ``(height, width, channels)`` numbers from 0.

    Raises:
        UserError: it holds something else.
    """
    try:
        pixels = np.array(value)
    except ValueError:  # rows of several lengths
        raise no_image(column, value) from None
    if pixels.ndim not in (2, 3) or pixels.dtype.kind not in "iuf" or not pixels.size or pixels.min() < 0:
        raise no_image(column, value)
    return pixels


def no_image(column: str, value: Any) -> UserError:
    return UserError(
        f"column `{column}` holds what is no image: {value!r:.60}",
        "an image is (height, width) or (height, width, 3) numbers of 0 to 255, or an image of `datasets`",
    )


def seen_anew(image: np.ndarray, flip: float, crop: float, jitter: float, top: float, draw: Random) -> np.ndarray:
    """An image cropped, mirrored and tinted, as the options of these names say.

    Args:
        image: ``(height, width)`` or ``(height, width, channels) float64``, from 0 to ``top``.
        flip: the chance to be mirrored left to right.
        crop: the least share of the area that a crop keeps; 1: no crop.
        jitter: how far brightness, contrast and saturation go from 1 to both sides.
        top: the largest value.
        draw: what is drawn from.
    """
    if crop < 1:
        image = cropped(image, crop, draw)
    if draw.random() < flip:
        image = image[:, ::-1]
    if jitter:
        image = jittered(image, jitter, top, draw)
    kept: np.ndarray = np.clip(image, 0, top)
    return kept


def cropped(image: np.ndarray, least: float, draw: Random) -> np.ndarray:
    """A part of an image, enlarged to its size (Szegedy et al. 2015, section 6): ``least`` to all of the area."""
    height, width = image.shape[:2]
    for _ in range(10):
        area = draw.uniform(least, 1.0) * height * width
        ratio = math.exp(draw.uniform(*map(math.log, RATIOS)))
        rows, columns = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 0 < rows <= height and 0 < columns <= width:
            first, left = draw.randint(0, height - rows), draw.randint(0, width - columns)
            return resized(image[first : first + rows, left : left + columns], height, width)
    return image


def resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """An image at another size, bilinear between the centres of its pixels."""
    for axis, size in ((0, height), (1, width)):
        old = image.shape[axis]
        places = np.clip((np.arange(size) + 0.5) * old / size - 0.5, 0, old - 1)
        low = np.floor(places).astype(int)
        part = (places - low).reshape([-1 if a == axis else 1 for a in range(image.ndim)])
        high = np.minimum(low + 1, old - 1)
        image = np.take(image, low, axis) * (1 - part) + np.take(image, high, axis) * part
    return image


def jittered(image: np.ndarray, most: float, top: float, draw: Random) -> np.ndarray:
    """An image with another brightness, contrast and saturation, in this order, each by a factor from 1 ± ``most``."""
    brightness, contrast, saturation = (draw.uniform(1 - most, 1 + most) for _ in range(3))
    image = image.copy()
    coloured = image.ndim == 3 and image.shape[2] >= 3
    colours = image[..., :3] if coloured else image[..., :1] if image.ndim == 3 else image
    colours[...] = np.clip(colours * brightness, None, top)
    grey = colours @ GREY if coloured else colours
    colours[...] = np.clip((colours - grey.mean()) * contrast + grey.mean(), 0, top)
    if coloured:
        grey = (colours @ GREY)[..., None]
        colours[...] = np.clip((colours - grey) * saturation + grey, 0, top)
    return image
