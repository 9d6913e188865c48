"""Where a text is damaged: how long the gaps are, and where they lie."""

from __future__ import annotations

import numpy as np


def span_lengths(length: int, density: float, mean: float, most: int, rng: np.random.Generator) -> np.ndarray:
    """The lengths of T5's gaps, ``(gaps,) int64``: of all ways to divide the hidden tokens, each is as probable.

    Args:
        length: tokens of the text, 1 at least.
        density: share of them to hide; one is hidden at least.
        mean: length of a gap.
        most: gaps that there may be.
        rng: where all randomness comes from.
    """
    hidden = _hidden(length, density)
    gaps = max(1, min(round(hidden / mean), hidden, length - hidden + 1, most))
    return _divided(hidden, gaps, rng)


def poisson_lengths(length: int, density: float, mean: float, rng: np.random.Generator) -> np.ndarray:
    """The lengths of BART's gaps, ``(gaps,) int64``: Poisson, until so much is hidden; a gap of 0 hides nothing."""
    hidden = _hidden(length, density)
    lengths: list[int] = []
    left = hidden
    while left:
        drawn = min(int(rng.poisson(mean)), left)
        # A gap of 0 makes the text longer by its mask; there must not be more masks than hidden tokens in the end.
        if drawn or len(lengths) + 1 + left <= hidden:
            lengths.append(drawn)
            left -= drawn
    most = length - hidden + 1  # gaps with a token between each two
    kept, over = lengths[:most], sum(lengths[most:])
    kept[-1] += over
    return np.array(kept, np.int64)


def placed(lengths: np.ndarray, length: int, rng: np.random.Generator) -> np.ndarray:
    """Where gaps of these lengths begin, ``(gaps,) int64``: evenly drawn places in a text of ``length`` tokens.

    There is a token between each two gaps, so that each can be told from the next.
    """
    between = _divided(length - int(lengths.sum()) + 2, len(lengths) + 1, rng)
    between[[0, -1]] -= 1  # before the first gap and after the last there may be nothing
    starts: np.ndarray = np.cumsum(between[:-1]) + np.cumsum(lengths) - lengths
    return starts


def _hidden(length: int, density: float) -> int:
    return min(max(round(length * density), 1), length)


def _divided(total: int, parts: int, rng: np.random.Generator) -> np.ndarray:
    """``total`` as a sum of so many whole numbers of 1 at least, each way as probable."""
    cuts = np.sort(rng.choice(total - 1, parts - 1, replace=False)) + 1
    return np.diff(np.concatenate([[0], cuts, [total]]))
