"""What every quadratic pull in drift space has in common: EWC, L2-SP, synaptic intelligence, MAS."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ftk import RunFailed
from ftk.parts import CHUNK_ELEMENTS, Context, Drift, Fill, Gradients, Importance, Knob, Mitigation, State, own_rows
from ftk_plugins.mitigations.pieces import LowRank, Piece, batches, by_rows, piece_elements


class Pull(Mitigation):
    """Adds the gradient of ``½ · strength · Σ Ω · drift²`` to each step; :meth:`guard` says of what, and what Ω is.

    With ``every = k`` a step pulls at the k-th part of the guarded weights, in turn and k times as strongly: over k
    steps every weight is pulled at once, and what a step expects is the whole pull.

    Args:
        name: the variant's, for messages.
        strength: of the penalty beside the mean loss.
        every: the k above.
    """

    def __init__(self, name: str, *, strength: float, every: int = 1) -> None:
        self.name = name
        self.knob: Knob | None = Knob(strength)
        self.every = every
        self.guarded: list[tuple[Drift, Tensor | None]] = []
        self._products: list[Piece] = []
        self._rows: list[tuple[Drift, Tensor | None]] = []

    @abstractmethod
    def guard(self, drifts: Mapping[str, Drift], ctx: Context) -> Sequence[tuple[Drift, Tensor | None]]:
        """What this stage pulls at, of ``drifts`` by common name, each with its Ω, shaped as the weight; None: ones."""

    def drifts(self, ctx: Context) -> Mapping[str, Drift]:
        """The drift of each weight by the name under which what is known of it goes from stage to stage."""
        assert ctx.adaptation is not None
        return {ctx.common_name(name): drift for name, drift in ctx.adaptation.drift().items()}

    def begin(self, ctx: Context) -> None:
        self.guarded = list(self.guard(self.drifts(ctx), ctx))
        low = [drift for drift, importance in self.guarded if importance is None and drift.products()]
        self._products = [LowRank(drifts) for drifts in batches(low, lambda drift: drift)]
        self._rows = [each for each in self.guarded if each[0] not in low]

    def edit_gradients(self, gradients: Gradients, ctx: Context) -> None:
        strength = self.strength() * self.every
        for piece in self.pieces(ctx)[ctx.step % self.every :: self.every]:
            piece.pull(strength)

    def strength(self) -> float:
        """That of the penalty, now."""
        assert self.knob is not None
        return self.knob.value

    def pieces(self, ctx: Context) -> list[Piece]:
        """All that is guarded, in pieces of about even size, those of this process where sharded."""
        limit = piece_elements(ctx.device)
        rows = (piece for drift, importance in self._rows for piece in by_rows(drift, importance, limit))
        return [*self._products, *rows]

    def count(self) -> int:
        """How many single weights are guarded."""
        return sum(drift.weight.numel() for drift, _ in self.guarded)

    def report(self) -> dict[str, Any]:
        return {"guarded_weights": self.count()}

    def weigh(self, ctx: Context) -> Mapping[str, Importance]:
        names = {id(drift.weight): name for name, drift in self.drifts(ctx).items()}
        found: dict[str, Importance] = {}
        for drift, importance in self.guarded:
            if importance is None:
                continue
            pieces = by_rows(drift, importance, CHUNK_ELEMENTS)
            total = sum(float(piece.importance.sum()) for piece in pieces if piece.importance is not None)
            found[names[id(drift.weight)]] = Importance(total, sum(float(piece.cost()) for piece in pieces))
        return found


class WeightedPull(Pull):
    """A pull whose Ω is a running sum over the tasks remembered, and goes on from stage to stage with its state.

    Args:
        name: the variant's, for messages.
        strength: as in :class:`Pull`.
        every: as in :class:`Pull`.
        gamma: what the sum is multiplied by when a task is added.
        kept: what the names of Ω begin with in the state.
        dtype: in which Ω of a matrix is held.

    Attributes:
        importances: Ω by common name; sharded as the weights are.
        tasks: of each task remembered, what was measured of it; for the report.
    """

    of_weights: ClassVar[Mapping[str, Fill]] = {"importance/*": "zeros"}

    def __init__(
        self,
        name: str,
        *,
        strength: float,
        every: int = 1,
        gamma: float = 1.0,
        kept: str = "importance/",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(name, strength=strength, every=every)
        self.gamma = gamma
        self.kept = kept
        self.dtype = dtype
        self.importances: dict[str, Tensor] = {}
        self.tasks: dict[str, dict[str, float]] = {}

    def guard(self, drifts: Mapping[str, Drift], ctx: Context) -> Sequence[tuple[Drift, Tensor | None]]:
        for name, drift in drifts.items():
            if name in self.importances:
                self.importances[name] = self.importances[name].to(drift.weight.device)
        return [(drift, self.importances[name]) for name, drift in drifts.items() if name in self.importances]

    def begin(self, ctx: Context) -> None:
        super().begin(ctx)
        if self.importances and not self.count():
            ctx.events("warning", text=f"{self.name}: this stage trains none of the weights that were remembered")

    def accumulate(self, new: Mapping[str, Tensor], scale: float = 1.0) -> None:
        """``Ω ← γ·Ω + scale·Ω_new``; weights that either of the two does not cover count as zero there.

        Args:
            new: float32 by common name; not to be used afterwards.
            scale: as in the formula.
        """
        for importance in self.importances.values():
            own_rows(importance)[0].mul_(self.gamma)
        for name, importance in new.items():
            dtype = self.dtype if importance.ndim > 1 else torch.float32
            own = own_rows(importance)[0]
            known = self.importances.get(name)
            if known is None:
                own.mul_(scale)
                self.importances[name] = importance.to(dtype)
            elif known.dtype == torch.float32:
                self.importances[name] = known.to(importance.device)
                own_rows(self.importances[name])[0].add_(own, alpha=scale)
            else:
                own.mul_(scale).add_(own_rows(known)[0].to(own.device))
                self.importances[name] = importance.to(dtype)

    def drifts(self, ctx: Context) -> Mapping[str, Drift]:
        """As in :class:`Pull`.

        Raises:
            RunFailed: a weight has another shape than it was remembered in.
        """
        drifts = super().drifts(ctx)
        for name, drift in drifts.items():
            known, shape = self.remembered_shape(name), drift.weight.shape
            if known is not None and known not in (shape, (*shape[:1], shape[1:].numel())):
                told = f"{tuple(known)} and is {tuple(shape)} in stage `{ctx.stage_name}`"
                raise RunFailed(f"mitigation {self.name}: {name} was remembered in shape {told}")
        return drifts

    def remembered_shape(self, name: str) -> tuple[int, ...] | None:
        """The shape of the weight that Ω is known of under this name; all but the first dimension may be one."""
        known = self.importances.get(name)
        return None if known is None else known.shape

    def weights(self, ctx: Context) -> dict[str, Tensor]:
        """Those of the weights that the model of ``ctx`` has: an earlier task's knows nothing of the new head."""
        there = {id(parameter) for parameter in ctx.model.parameters()}
        return {name: drift.weight for name, drift in self.drifts(ctx).items() if id(drift.weight) in there}

    def report(self) -> dict[str, Any]:
        return {"tasks": self.tasks, **super().report()}

    def state_dict(self) -> State:
        return {"tasks": self.tasks, **{self.kept + name: value for name, value in self.importances.items()}}

    def load_state_dict(self, state: State) -> None:
        strange = [key for key in state if key != "tasks" and not key.startswith(self.kept)]
        if strange:
            raise ValueError(f"{self.name}: a state does not have {', '.join(strange)}")
        self.tasks = dict(state.get("tasks", {}))
        self.importances = {key.removeprefix(self.kept): value for key, value in state.items() if key != "tasks"}
