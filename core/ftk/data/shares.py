"""How many rows of each source a stage has drawn by when, where shares of the mix change as the stage goes on."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ftk.errors import UserError
from ftk.parts import Course
from ftk.recipe.training import DEFAULT_EPOCHS, Training

FINE = 200
"""So many pieces of a stage, at least, have shares of their own."""


def highest(shares: Sequence[float | Course]) -> float:
    """The most that shares sum to at any time."""
    corners = {0.0, 1.0, *(share.over for share in shares if isinstance(share, Course))}
    return max(sum(at(share, done) for share in shares) for done in corners)


def at(share: float | Course, done: float) -> float:
    """A share when so much of the stage is done, 0 to 1."""
    return share.at(done) if isinstance(share, Course) else share


class Changing:
    """Rows drawn of each source, where shares change: an epoch is cut into blocks, each with shares of its own.

    In one epoch the stage's own rows are passed once, whatever the shares. How much of the stage is done is counted
    in epochs, so that nothing depends on how the rows are cut into steps.

    Args:
        own: how many rows an epoch draws of each of the stage's own sources.
        shares: what the others have.
        training: says how long the stage is.

    Raises:
        UserError: it is told in steps of so many tokens, and nothing tells how many rows that are.
    """

    def __init__(self, own: Sequence[float], shares: Sequence[float | Course], training: Training) -> None:
        drawn = sum(own)
        middles = (np.arange(FINE) + 0.5) / FINE
        mixed = self._per_own_row(shares, middles).mean(1)
        if training.steps is not None and training.batch_tokens is not None:
            raise UserError(
                "a share that changes needs to know how long the stage is, and steps of tokens do not tell",
                "give training.epochs in place of training.steps, or training.batch_size in place of batch_tokens",
            )
        if training.steps is None:
            length = float(training.epochs or DEFAULT_EPOCHS)
        else:
            length = training.steps * training.batch_size / (drawn * (1 + mixed.sum()))
        self.blocks = max(1, min(math.ceil(FINE / length), int(drawn)))
        done = np.minimum((np.arange(math.ceil(length * self.blocks) + 1) + 0.5) / self.blocks / length, 1.0)
        rates = drawn / self.blocks * self._per_own_row(shares, done)
        self._last = np.concatenate([np.asarray(own) / self.blocks, rates[:, -1]])
        rates = np.concatenate([np.repeat(np.asarray(own)[:, None] / self.blocks, len(done), 1), rates])
        self._drawn = np.concatenate([np.zeros((len(rates), 1)), rates.cumsum(1)], 1)

    def until(self, block: int) -> np.ndarray:
        """How many rows of each source the first blocks of the stream have drawn, ``(sources,) int64``."""
        known = min(block, self._drawn.shape[1] - 1)
        # To the nearest, and the same for a row more or less in the last bit of a sum.
        drawn: np.ndarray = np.rint(np.round(self._drawn[:, known] + (block - known) * self._last, 6)).astype(np.int64)
        return drawn

    @staticmethod
    def _per_own_row(shares: Sequence[float | Course], done: np.ndarray) -> np.ndarray:
        """How many rows of each source come with one of the stage's own, at these times: ``(sources, times)``."""
        found = np.array([[at(share, float(time)) for time in done] for share in shares])
        mixed: np.ndarray = found / (1 - found.sum(0))
        return mixed
