"""What the objectives share that read images: a row's image, and its pixels as the model takes them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from ftk import UserError
from ftk.parts import Row
from ftk_plugins.objectives.tokens import columns_of


def pixels_of(rows: Sequence[Row], column: str, processor: Any) -> list[np.ndarray]:
    """The images of rows as an image processor gives them, ``(channels, height, width) float32`` each.

    Raises:
        UserError: Pillow is not installed, or a row has no image in this column.
    """
    if find_spec("PIL") is None:
        raise UserError("images are read with Pillow, which is not installed", "pip install 'finetune-toolkit[images]'")
    found = processor(images=[_picture(row, column) for row in rows], return_tensors="np")["pixel_values"]
    return [np.ascontiguousarray(image, np.float32) for image in found]


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
        try:
            pixels = np.array(value)
            if pixels.ndim not in (2, 3) or pixels.dtype.kind not in "iuf" or pixels.min() < 0 or pixels.max() > 255:
                raise ValueError
            value = Image.fromarray(pixels.astype(np.uint8))
        except (ValueError, TypeError):
            raise UserError(
                f"column `{column}` holds what is no image: {value!r:.60}",
                "an image is (height, width) or (height, width, 3) numbers of 0 to 255, or an image of `datasets`",
            ) from None
    return value.convert("RGB")
