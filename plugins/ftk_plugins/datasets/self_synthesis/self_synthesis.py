"""The data set `self_synthesis`: the starting model writes, and what it wrote is filtered by its own perplexity."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import numpy as np
from datasets import Dataset

from ftk import RunFailed, UserError
from ftk.parts import DatasetSource, Effect, Head, Split, StartingModel, Tally
from ftk_plugins.datasets.self_synthesis.forms import FORMS, Drawn
from ftk_plugins.datasets.self_synthesis.options import SelfSynthesisOptions
from ftk_plugins.datasets.self_synthesis.sampling import Writer

logger = logging.getLogger("ftk.datasets")

MOST_DRAWS = 4
"""How many times as many rows as are needed are drawn at most, where many are of no use or alike."""


class SelfSynthesis(DatasetSource):
    """Rows drawn from the starting model; written once for the same model and options, then kept by the core."""

    def __init__(self, options: SelfSynthesisOptions) -> None:
        self.options = options
        self._model: StartingModel | None = None
        self._tally = Tally()

    def see_model(self, model: StartingModel) -> None:
        self._model = model

    def identity(self) -> str | None:
        return self._starting.identity()

    def rows(self, split: Split) -> Dataset:
        """The rows, in the order in which they were drawn, with their ``perplexity``.

        Raises:
            UserError: the model cannot write, has no chat template where one is needed, or wrote nothing of use.
        """
        self._tally = Tally()
        drawn = self._draw()
        why = "; ".join(f"{effect.rows} {effect.reason}" for effect in self.effects())
        if not drawn:
            raise UserError(
                f"nothing that the starting model wrote is of use: {why}",
                "raise `max_new_tokens`, give it `prompts`, or choose another `form`",
            )
        perplexities = np.exp([row.nats / row.tokens for row in drawn])
        kept = self._between(drawn, perplexities)
        if len(kept) < self.options.rows:
            logger.warning("self_synthesis: %d rows of %d: of what was written, %s", len(kept), self.options.rows, why)
        return Dataset.from_list([{**drawn[row].columns, "perplexity": float(perplexities[row])} for row in kept])

    def effects(self) -> Sequence[Effect]:
        """What was left out: rows that are empty, cut off, like another, of a perplexity at the edges, or too many."""
        return self._tally.effects()

    @property
    def _starting(self) -> StartingModel:
        if self._model is None:
            raise RunFailed("`self_synthesis` was not handed the starting model")
        return self._model

    def _draw(self) -> list[Drawn]:
        """Rows of use that differ: as many as are needed before the filter, or those of the most draws."""
        options, starting = self.options, self._starting
        needed = math.ceil(options.rows / (1 - options.drop_lowest - options.drop_highest))
        found: dict[tuple[str, ...], Drawn] = {}

        def pause() -> None:
            starting.progress("the starting model writes rows", min(len(found), needed - 1), needed)

        draw = FORMS[options.form](Writer(starting.load(Head("causal_lm")), options, pause), options)
        size = min(options.batch_size, needed)
        for first in range(0, MOST_DRAWS * needed, size):
            for row in draw(range(first, first + size)):
                key = tuple(text.strip() for text in row.columns.values())
                flaw = row.flaw or ("like another" if key in found else "")
                if flaw:
                    self._tally.dropped(flaw, _shown(row))
                else:
                    found[key] = row
            if len(found) >= needed:
                break
        starting.progress("the starting model writes rows", needed, needed)
        return list(found.values())

    def _between(self, drawn: Sequence[Drawn], perplexities: np.ndarray) -> list[int]:
        """The numbers of the rows that are kept, in their order."""
        order = np.argsort(perplexities, kind="stable")
        low, high = (int(share * len(drawn)) for share in (self.options.drop_lowest, self.options.drop_highest))
        middle = order[low : len(drawn) - high]
        least, most = perplexities[middle[0]], perplexities[middle[-1]]
        for row in order[:low]:
            self._tally.dropped(f"of a perplexity below {least:.3g}", _shown(drawn[row]))
        for row in order[::-1][:high]:
            self._tally.dropped(f"of a perplexity above {most:.3g}", _shown(drawn[row]))
        kept = np.sort(middle)
        for row in kept[self.options.rows :]:
            self._tally.dropped("more than were asked for", _shown(drawn[row]))
        return [int(row) for row in kept[: self.options.rows]]


def _shown(row: Drawn) -> str:
    return "\n".join(row.columns.values())
