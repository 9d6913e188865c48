"""The data set `digits`: 1797 handwritten digits that scikit-learn carries, a fifth of them kept back for tests."""

import numpy as np
from datasets import Dataset
from sklearn.datasets import load_digits

from ftk.parts import DatasetSource, Split
from ftk_digits.options import DigitsOptions

TESTED = 0.2


class Digits(DatasetSource):
    """Rows of ``pixels``, 64 numbers of 0 to 1, and ``digit``. Every permutation is a task as hard as the others."""

    def __init__(self, options: DigitsOptions) -> None:
        self.options = options

    def splits(self) -> tuple[Split, ...]:
        return ("train", "test")

    def rows(self, split: Split) -> Dataset:
        pixels, digits = load_digits(return_X_y=True)
        if self.options.permutation:
            pixels = pixels[:, np.random.default_rng(self.options.permutation).permutation(pixels.shape[1])]
        order = np.random.default_rng(0).permutation(len(digits))  # the same digits are tested in each task
        first = round(TESTED * len(digits))
        chosen = order[:first] if split == "test" else order[first:]
        return Dataset.from_dict({"pixels": pixels[chosen] / 16, "digit": digits[chosen]})
