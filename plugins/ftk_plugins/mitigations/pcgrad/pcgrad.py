"""Gradient surgery: projects the gradient of each source of rows off those that it works against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ftk.parts import Context, Gradients, Mitigation, State
from ftk_plugins.mitigations.products import products_by_weight

from .options import PcgradOptions


class Pcgrad(Mitigation):
    """PCGrad (Yu et al. 2020, algorithm 1) between the sources of a step's rows.

    A projected gradient is a sum of the sources' own, ``g_i − Σ_j c_ij g_j``, so that the products of each two decide
    every coefficient: they are taken once, and each source's gradient is read once more for the result. What is added
    to the step's gradient is the difference that the projections make; what others have edited stays as it is.

    Its state is how many pairs were compared and how many of them were in conflict.
    """

    def __init__(self, options: PcgradOptions) -> None:
        self.options = options
        self._pairs = self._conflicts = 0

    def edit_gradients(self, gradients: Gradients, ctx: Context) -> None:
        sources = [gradients.by_source[name] for name in sorted(gradients.by_source)]
        if len(sources) < 2:
            return
        products = {name: found.cpu() for name, found in products_by_weight(sources).items()}
        shared = {name: found for name, found in products.items() if (found.diagonal() > 0).sum() > 1}
        if not shared:
            return
        generator = ctx.generator("pcgrad", ctx.step)
        orders = [torch.randperm(len(sources), generator=generator).tolist() for _ in sources]
        whole = torch.stack(list(shared.values())).sum(0)
        self._count(whole)
        if self.options.scope == "all":
            taken = dict.fromkeys(shared, coefficients(whole, orders))
        else:
            taken = {name: coefficients(found, orders) for name, found in shared.items()}
        for name, shares in taken.items():
            for source, share in zip(sources, shares, strict=True):
                if share:
                    gradients[name].sub_(source[name], alpha=share)

    def report(self) -> dict[str, Any]:
        return {"pairs": self._pairs, "conflicts": self._conflicts}

    def state_dict(self) -> State:
        return {"pairs": self._pairs, "conflicts": self._conflicts}

    def load_state_dict(self, state: State) -> None:
        if strange := state.keys() - {"pairs", "conflicts"}:
            raise ValueError(f"pcgrad: a state does not have {', '.join(strange)}")
        self._pairs, self._conflicts = state.get("pairs", 0), state.get("conflicts", 0)

    def _count(self, products: Tensor) -> None:
        """Write down how many pairs of sources there were, and how many of them worked against each other."""
        above = products.triu(1)
        self._pairs += len(products) * (len(products) - 1) // 2
        self._conflicts += int((above < 0).sum())


def coefficients(products: Tensor, orders: Sequence[Sequence[int]]) -> list[float]:
    """How much of each source's gradient the projections take off the sum of all.

    Args:
        products: inner products of each two gradients, ``(sources, sources) float64``.
        orders: for each source the order in which it is projected off the others; itself in it is passed over.

    Returns:
        ``Σ_i c_ij`` for each source ``j``, where source ``i`` becomes ``g_i − Σ_j c_ij g_j``.
    """
    count = len(products)
    left = torch.eye(count, dtype=products.dtype)  # each projected gradient as a sum of the sources' own
    for source, order in enumerate(orders):
        for other in order:
            along = left[source] @ products[:, other]
            if other != source and along < 0 and products[other, other] > 0:
                left[source, other] -= along / products[other, other]
    taken: list[float] = (1 - left.sum(0)).tolist()
    return taken
