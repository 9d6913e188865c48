"""What every quadratic pull in drift space has in common: EWC, L2-SP, synaptic intelligence, MAS."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ftk import RunFailed
from ftk.parts import CHUNK_ELEMENTS, Context, Drift, Gradients, Importance, Knob, Mitigation, State, own_rows

CPU_CHUNK_ELEMENTS = 1 << 18
"""Elements of a weight that each CPU thread pulls at a time: 1 MiB, which stays in its cache."""


class Pull(Mitigation):
    """Adds the gradient of ``½ · strength · Σ Ω · drift²`` to each step; :meth:`guard` says of what, and what Ω is.

    With ``every = k`` a step pulls at the k-th part of the guarded weights, in turn and k times as strongly: over k
    steps every weight is pulled at once, and what a step expects is the whole pull.

    Args:
        name: the variant's, for messages.
        strength: of the penalty beside the mean loss.
        every: the k above.
    """

    knob: Knob

    def __init__(self, name: str, *, strength: float, every: int = 1) -> None:
        self.name = name
        self.knob = Knob(strength)
        self.every = every
        self.guarded: list[tuple[Drift, Tensor | None]] = []

    @abstractmethod
    def guard(self, drifts: Mapping[str, Drift], ctx: Context) -> Sequence[tuple[Drift, Tensor | None]]:
        """What this stage pulls at, of ``drifts`` by common name, each with its Ω, shaped as the weight; None: ones."""

    def drifts(self, ctx: Context) -> Mapping[str, Drift]:
        """The drift of each weight by the name under which what is known of it goes from stage to stage."""
        assert ctx.adaptation is not None
        return {ctx.common_name(name): drift for name, drift in ctx.adaptation.drift().items()}

    def begin(self, ctx: Context) -> None:
        self.guarded = list(self.guard(self.drifts(ctx), ctx))

    def edit_gradients(self, gradients: Gradients, ctx: Context) -> None:
        strength = self.knob.value * self.every
        for drift, importance, start, stop in self._pieces(ctx)[ctx.step % self.every :: self.every]:
            pull = drift.rows(start, stop)
            if importance is None:
                pull.mul_(strength)
            else:  # strength · Ω · drift in one pass and in place
                torch.addcmul(pull.new_zeros(()), pull, importance, value=strength, out=pull)
            drift.pull_back(start, stop, pull)

    def report(self) -> dict[str, Any]:
        return {"guarded_weights": sum(drift.weight.numel() for drift, _ in self.guarded)}

    def weigh(self, ctx: Context) -> Mapping[str, Importance]:
        names = {id(drift.weight): name for name, drift in self.drifts(ctx).items()}
        found: dict[str, Importance] = {}
        for drift, importance in self.guarded:
            if importance is None:
                continue
            own, first = own_rows(importance)
            own = own if own.ndim else own.view(1)
            total, cost = own.new_zeros(()), own.new_zeros(())
            for start, stop in drift.chunks():
                omega = own[start - first : stop - first].float()
                total += omega.sum()
                cost += (omega * drift.rows(start, stop).square()).sum() / 2
            found[names[id(drift.weight)]] = Importance(float(total), float(cost))
        return found

    def _pieces(self, ctx: Context) -> list[tuple[Drift, Tensor | None, int, int]]:
        """Each guarded weight with its Ω in ranges of rows of even size, those of this process where sharded."""
        limit = CPU_CHUNK_ELEMENTS * torch.get_num_threads() if ctx.device.type == "cpu" else CHUNK_ELEMENTS
        pieces: list[tuple[Drift, Tensor | None, int, int]] = []
        for drift, importance in self.guarded:
            if importance is None:
                pieces += [(drift, None, start, stop) for start, stop in drift.chunks(limit)]
                continue
            own, first = own_rows(importance)
            own = own if own.ndim else own.view(1)
            pieces += [(drift, own[start - first : stop - first], start, stop) for start, stop in drift.chunks(limit)]
        return pieces


class WeightedPull(Pull):
    """A pull whose Ω is a running sum over the tasks remembered, and goes on from stage to stage with its state.

    Args:
        name: the variant's, for messages.
        strength: as in :class:`Pull`.
        every: as in :class:`Pull`.
        gamma: what the sum is multiplied by when a task is added.
        kept: what the names of Ω begin with in the state.

    Attributes:
        importances: Ω in float32 by common name; sharded as the weights are.
        tasks: of each task remembered, what was measured of it; for the report.
    """

    def __init__(
        self, name: str, *, strength: float, every: int = 1, gamma: float = 1.0, kept: str = "importance/"
    ) -> None:
        super().__init__(name, strength=strength, every=every)
        self.gamma = gamma
        self.kept = kept
        self.importances: dict[str, Tensor] = {}
        self.tasks: dict[str, dict[str, float]] = {}

    def guard(self, drifts: Mapping[str, Drift], ctx: Context) -> Sequence[tuple[Drift, Tensor | None]]:
        for name, drift in drifts.items():
            if name in self.importances:
                self.importances[name] = self.importances[name].to(drift.weight.device)
        guarded = [(drift, self.importances[name]) for name, drift in drifts.items() if name in self.importances]
        if self.importances and not guarded:
            ctx.events("warning", text=f"{self.name}: this stage trains none of the weights that were remembered")
        return guarded

    def accumulate(self, new: Mapping[str, Tensor], scale: float = 1.0) -> None:
        """``Ω ← γ·Ω + scale·Ω_new``; weights that either of the two does not cover count as zero there.

        Args:
            new: float32 by common name; not to be used afterwards.
            scale: as in the formula.
        """
        for importance in self.importances.values():
            own_rows(importance)[0].mul_(self.gamma)
        for name, importance in new.items():
            known = self.importances.get(name)
            own = own_rows(importance)[0]
            if known is None:
                own.mul_(scale)
                self.importances[name] = importance
            else:
                self.importances[name] = known.to(importance.device)
                own_rows(self.importances[name])[0].add_(own, alpha=scale)

    def drifts(self, ctx: Context) -> Mapping[str, Drift]:
        """As in :class:`Pull`.

        Raises:
            RunFailed: a weight has another shape than it was remembered in.
        """
        drifts = super().drifts(ctx)
        for name, drift in drifts.items():
            known = self.importances.get(name)
            if known is not None and known.shape != drift.weight.shape:
                told = f"{tuple(known.shape)} and is {tuple(drift.weight.shape)} in stage `{ctx.stage_name}`"
                raise RunFailed(f"mitigation {self.name}: {name} was remembered in shape {told}")
        return drifts

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
