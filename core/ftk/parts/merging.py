"""Methods of merging: how the weights of several models, or of both ends of a stage, become one."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ftk.parts.part import Part
from ftk.parts.seeding import derive_seed

_BLOCK = re.compile(r"(?:^|\.)(layers?|h|blocks?)\.(\d+)\.")
_FIRST = ("embed", "token", "position", "wte", "wpe", "patch", "shared", "conv1")
"""Words in the names of weights outside of the blocks that stand before them; all others stand behind."""


@dataclass(frozen=True, slots=True)
class MergePiece:
    """Some rows of one weight, of every model.

    Attributes:
        start: the number of the first row.
        models: each model's rows, ``(rows, …)`` float32; of a method with ``vectors`` what they are more than the
            base's. Tensors of the method's own, to overwrite or to return.
        importances: each model's importance of every entry, shaped alike, above or equal 0; empty where nobody asked.
    """

    start: int
    models: tuple[Tensor, ...]
    importances: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class MergeWeight:
    """One weight as a whole.

    Attributes:
        name: as the model's file has it.
        shape: of the whole weight.
        depth: where it stands: 0 in the first block or before it, 1 in the last or behind it; see :class:`Depths`.
        shares: how much each model counts, as the user said it; 1 each where nobody did.
        seed: of what is drawn.
        pieces: reads the rows in order, in pieces of whole rows, again at each call.
    """

    name: str
    shape: tuple[int, ...]
    depth: float
    shares: tuple[float, ...]
    seed: int
    pieces: Callable[[], Iterator[MergePiece]]

    def generator(self, *keys: object) -> torch.Generator:
        """A CPU random generator that depends on the seed, the weight's name and ``keys`` alone."""
        return torch.Generator().manual_seed(derive_seed(self.seed, self.name, *keys))

    def normalized(self) -> tuple[float, ...]:
        """The shares divided by their sum; even ones where that is 0."""
        total = sum(self.shares)
        return tuple(share / total if total else 1 / len(self.shares) for share in self.shares)


class MergeMethod(Part):
    """Merges weight by weight; without state and without memory of other weights.

    Used by ``ftk merge`` on models that are saved, and by the mitigation ``interpolation`` on the two ends of a stage.
    There a method with ``vectors`` has the stage's movement as its only model, and what it makes of it is multiplied by
    α; another has the start and the trained weights, with the shares ``1 − α`` and ``α``.
    """

    vectors: ClassVar[bool] = False
    """Whether it merges what models are more than a base; what it returns is then added to the base's rows."""
    importances: ClassVar[bool] = False
    """Whether it needs to know how important each entry is to each model."""
    shared: ClassVar[bool] = True
    """Whether shares say something to it."""
    fewest: ClassVar[int] = 1
    most: ClassVar[int | None] = None
    """How many models it can merge."""

    def survey(self, weight: MergeWeight) -> Any:
        """What must be known of the whole weight before its pieces are merged, as norms or thresholds.

        ``weight.pieces()`` reads them, as often as it takes; what they hold is only read here.
        """
        return None

    @abstractmethod
    def combine(self, piece: MergePiece, weight: MergeWeight, known: Any) -> Tensor:
        """The merged rows, float32, shaped as each model's; how a weight is cut into pieces does not show in them.

        What is drawn may differ with the cut, not in its distribution.

        Args:
            piece: the rows.
            weight: that they are of.
            known: what :meth:`survey` returned.
        """


class WeightedSum(MergeMethod):
    """A method that multiplies each model's weight by one factor and adds up.

    The factors follow from depth and shares alone; of a method without ``vectors`` they sum to 1. In a stage it so
    scales the movement, weight by weight.
    """

    @abstractmethod
    def factors(self, weight: MergeWeight) -> Sequence[float]:
        """Each model's factor for this weight."""

    def survey(self, weight: MergeWeight) -> Any:
        return self.factors(weight)

    def combine(self, piece: MergePiece, weight: MergeWeight, known: Any) -> Tensor:
        return weighted_sum(piece.models, known)


def weighted_sum(tensors: Sequence[Tensor], factors: Sequence[float]) -> Tensor:
    """``Σ factor · tensor``, in the first of the tensors."""
    total, *others = tensors
    if factors[0] != 1:
        total.mul_(factors[0])
    for tensor, factor in zip(others, factors[1:], strict=True):
        total.add_(tensor, alpha=factor)
    return total


class Depths:
    """How deep in a model each weight stands, told by its name.

    Blocks are counted in their own stack, as a decoder's apart from its encoder's.

    Args:
        names: of all weights of the model.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._last: dict[str, int] = {}
        for name in names:
            if (found := _BLOCK.search(name)) is not None:
                stack = name[: found.start(2)]
                self._last[stack] = max(self._last.get(stack, 0), int(found[2]))

    def of(self, name: str) -> float:
        """From 0, the first block or before it, to 1, the last block or behind it."""
        if (found := _BLOCK.search(name)) is not None and (last := self._last.get(name[: found.start(2)])) is not None:
            return int(found[2]) / last if last else 1.0
        return 0.0 if any(word in name for word in _FIRST) else 1.0
