"""The transform `permute_pixels`: one order of pixels for all images of a task."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset, Features, Image, List, Value

from ftk import UserError
from ftk.parts import Transform
from ftk_plugins.transforms.augment.images import numbers_in
from ftk_plugins.transforms.permute_pixels.options import PermutePixelsOptions
from ftk_plugins.transforms.rows import named_columns, rewritten, with_column


class PermutePixels(Transform):
    """Each pixel goes to another place, in every image to the same one, with all its colours."""

    def __init__(self, options: PermutePixelsOptions) -> None:
        self.options = options

    def apply(self, dataset: Dataset) -> Dataset:
        """Images become numbers of 0 to 255, ``(height, width)`` or with a third dimension for colours.

        Raises:
            UserError: the column holds no images, or images of several sizes.
        """
        name = named_columns(dataset, [self.options.column], "permute_pixels")[0]
        if self.options.seed == 0 or not len(dataset):
            return dataset
        first = self._pixels(dataset[0][name])
        height, width = first.shape[:2]
        order = np.random.default_rng(self.options.seed).permutation(height * width)
        kind = List(List(Value("uint8"))) if first.ndim == 2 else List(List(List(Value("uint8"))))
        decode = Image().decode_example if isinstance(dataset.features[name], Image) else None

        def changed(table: pa.Table, number: int) -> pa.Table:
            moved = []
            for place, value in enumerate(table.column(name).to_pylist(), start=number):
                pixels = self._pixels(value if decode is None or value is None else decode(value))
                if pixels.shape != first.shape:
                    raise UserError(
                        f"row {place + 1}: an image of {_size(pixels)}, and the first is of {_size(first)}",
                        "pixels keep their places only where all images are of one size",
                    )
                moved.append(pixels.reshape(height * width, -1)[order].reshape(pixels.shape).tolist())
            return with_column(table, name, moved, Features({name: kind}).arrow_schema.field(name).type)

        return rewritten(dataset, changed, Features({**dataset.features, name: kind}))

    def _pixels(self, value: Any) -> np.ndarray:
        return np.asarray(numbers_in(self.options.column, value)).astype(np.uint8)


def _size(pixels: np.ndarray) -> str:
    return " by ".join(map(str, pixels.shape))
