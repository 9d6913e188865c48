"""What the objectives share that read images: a row's image, and its pixels as the model takes them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from random import Random
from typing import Any

import numpy as np

from ftk import UserError
from ftk.parts import Row
from ftk_plugins.objectives.picture_options import PictureOptions
from ftk_plugins.objectives.tokens import columns_of
from ftk_plugins.transforms.augment import images


def pixels_of(rows: Sequence[Row], column: str, processor: Any) -> list[np.ndarray]:
    """The images of rows as an image processor gives them, ``(channels, height, width) float32`` each.

    Raises:
        UserError: Pillow is not installed, or a row has no image in this column.
    """
    if find_spec("PIL") is None:
        raise UserError("images are read with Pillow, which is not installed", "pip install 'finetune-toolkit[images]'")
    found = processor(images=[_picture(row, column) for row in rows], return_tensors="np")["pixel_values"]
    return [np.ascontiguousarray(image, np.float32) for image in found]


def seen_anew(pixels: np.ndarray, options: PictureOptions, processor: Any, rng: np.random.Generator) -> np.ndarray:
    """An encoded image cropped, mirrored and tinted as the options say, ``(channels, height, width) float32``.

    Args:
        pixels: as :func:`pixels_of` gives it.
        options: how far.
        processor: the image processor, which tells what it made of the numbers of a picture.
        rng: what is drawn from.
    """
    if (options.flip, options.crop, options.jitter) == (0, 1, 0):
        return pixels
    mean, spread = np.zeros(3), np.ones(3)
    if getattr(processor, "do_normalize", False):
        mean, spread = np.array(processor.image_mean), np.array(processor.image_std)
    top = 1.0 if getattr(processor, "do_rescale", True) else 255.0
    image = pixels.transpose(1, 2, 0) * spread + mean
    image = images.seen_anew(image, options.flip, options.crop, options.jitter, top, Random(int(rng.integers(2**63))))
    return np.ascontiguousarray(((image - mean) / spread).transpose(2, 0, 1), np.float32)


def _picture(row: Row, column: str) -> Any:
    """A row's image in red, green and blue."""
    from PIL import Image

    value = row.get(column)
    if value is None:
        raise UserError(
            f"there is no image in column `{column}`; the row has {columns_of(row)}",
            "name the column with the objective's `image`, or map it with the data set's `columns`",
        )
    if not isinstance(value, Image.Image):
        pixels = images.numbers_in(column, value)
        if pixels.max() > 255 or pixels.shape[2:] not in ((), (2,), (3,), (4,)):
            raise images.no_image(column, value)
        value = Image.fromarray(pixels.astype(np.uint8))
    return value.convert("RGB")
