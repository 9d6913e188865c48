"""Mixes the rows of several data sets: exact shares, the same in every stretch, drawn by a seed."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ftk import UserError
from ftk.parts import DataMix, derive_seed
from ftk_plugins.datasets.mixture.options import MixtureOptions

MOST_TIMES = 100
"""How many times as many rows as there are a mix may have before it must be asked for with `limit`."""

CLOSE = 1e-9
"""What a sum of shares may be off by, relative to it."""


class Mixture(DataMix):
    """Parts by their shares of the mix.

    The rows of a part come in a random order, and its next ones in another each time it begins anew. Among the others
    they are spread evenly, so that the first rows of the mix have its shares too.
    """

    def __init__(self, options: MixtureOptions) -> None:
        self.options = options

    def order(self, counts: Mapping[str, int]) -> np.ndarray:
        drawn = self.drawn(counts)
        places, parts, rows = [], [], []
        for number, (name, count) in enumerate(counts.items()):
            places.append((np.arange(drawn[name]) + 0.5) / drawn[name])
            parts.append(np.full(drawn[name], number))
            rows.append(self._rows(name, count, drawn[name]))
        order = np.argsort(np.concatenate(places), kind="stable")
        return np.stack([np.concatenate(parts)[order], np.concatenate(rows)[order]], axis=1)

    def drawn(self, counts: Mapping[str, int]) -> dict[str, int]:
        """How many rows of each part the mix has: the whole numbers nearest to the shares.

        Raises:
            UserError: a part has none, or the mix is out of all proportion.
        """
        shares = self.shares(counts)
        lengths = [count / shares[name] for name, count in counts.items()]
        if self.options.when_out == "stop":
            total = math.floor(min(lengths) * (1 + CLOSE))
        else:
            total = math.ceil(max(lengths) * (1 - CLOSE))
        if self.options.limit is not None:
            total = min(total, self.options.limit)
        elif total > MOST_TIMES * sum(counts.values()):
            rarest = max(counts, key=lambda name: counts[name] / shares[name])
            raise UserError(
                f"until every row of `{rarest}` came, the mix has {total:,} rows; there are {sum(counts.values()):,}",
                "set `limit`, give that part more of the mix, or limit its own rows",
            )
        exact = {name: share * total for name, share in shares.items()}
        drawn = {name: math.floor(rows + CLOSE) for name, rows in exact.items()}
        by_rest = sorted(exact, key=lambda name: drawn[name] - exact[name])
        for name in by_rest[: total - sum(drawn.values())]:
            drawn[name] += 1
        if self.options.when_out == "stop":
            drawn = {name: min(rows, counts[name]) for name, rows in drawn.items()}  # against rounding
        if missing := [name for name, rows in drawn.items() if not rows]:
            raise UserError(
                f"the mix has {total} rows, and the share of `{missing[0]}`, {shares[missing[0]]:.2%}, is none of them",
                "give it more of the mix, raise `limit`, or leave the part out",
            )
        return drawn

    def shares(self, counts: Mapping[str, int]) -> dict[str, float]:
        """Each part's share of the mix; they add up to 1. One that is not fixed goes by weight (Raffel 2020)."""
        parts = {name: self.options.parts[name] for name in counts}
        fixed = {name: part.share for name, part in parts.items() if part.share is not None}
        weights = {
            name: counts[name] if part.weight is None else part.weight
            for name, part in parts.items()
            if name not in fixed
        }
        sizes = {
            name: (weight / max(weights.values())) ** (1 / self.options.temperature) for name, weight in weights.items()
        }
        left = 1 - sum(fixed.values()) if sizes else 1.0
        whole = sum(sizes.values())
        return {name: fixed[name] if name in fixed else left * sizes[name] / whole for name in counts}

    def _rows(self, name: str, count: int, drawn: int) -> np.ndarray:
        """Which rows of a part come, in order: each once before one comes again."""
        times = -(-drawn // count)
        passes = [
            np.random.default_rng(derive_seed(self.options.seed, name, time)).permutation(count)
            for time in range(times)
        ]
        return np.concatenate(passes)[:drawn]
