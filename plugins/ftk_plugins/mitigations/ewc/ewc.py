"""Elastic weight consolidation: a pull against the drift, stiff where earlier tasks depend on the weight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ftk import RunFailed
from ftk.parts import CHUNK_ELEMENTS, Context, Drift, Gradients, Mitigation, State, Task, own_rows

from .fisher import Fisher, estimate_fisher, rehearse_fisher
from .options import EwcOptions

CPU_CHUNK_ELEMENTS = 1 << 18
"""Elements of a weight that each CPU thread pulls at a time: 1 MiB, which stays in its cache."""

_PREFIX = "fisher/"


class Ewc(Mitigation):
    """Adds the gradient of ``½ · strength · Σ F · drift²`` to each step (Kirkpatrick et al. 2017, eq. 3).

    ``F`` is one running sum over the tasks remembered (online EWC, Schwarz et al. 2018, section 4), and the
    anchor is the model at the stage's start. Its state is ``F`` by weight and what was measured of each task.

    With ``every = k`` a step pulls at the k-th part of the guarded weights, in turn and k times as strongly: over k
    steps every weight is pulled at once, and what a step expects is the whole pull.
    """

    def __init__(self, options: EwcOptions) -> None:
        self.options = options
        self._fisher: dict[str, Tensor] = {}
        self._tasks: dict[str, dict[str, float]] = {}
        self._guarded: list[tuple[Drift, Tensor]] = []

    def remember(self, task: Task, ctx: Context) -> None:
        """Estimate the Fisher information of ``task`` and take it into the sum.

        Raises:
            UserError: the task has no training rows.
            RunFailed: its gradients are not finite.
        """
        assert ctx.adaptation is not None
        # Where a stage begins nothing has moved, and each base layer does its own work.
        with ctx.adaptation.reference():
            estimate = estimate_fisher(
                task,
                ctx,
                self._weights(ctx),
                samples=self.options.samples,
                draw=self.options.labels == "sample",
                batch_size=self.options.fisher_batch_size or ctx.micro_batch_size,
            )
        if estimate.trace == 0:
            ctx.events(
                "warning",
                text=f"ewc: the gradients of `{task.name}` are all zero, so nothing of it is guarded",
            )
        self._accumulate(estimate)
        self._tasks[task.name] = {"trace": estimate.trace, "samples": estimate.samples}

    def rehearse(self, task: Task, ctx: Context) -> None:
        batch_size = self.options.fisher_batch_size or ctx.micro_batch_size
        assert ctx.adaptation is not None
        weights = self._weights(ctx)
        with ctx.adaptation.reference():
            diagonal = rehearse_fisher(task, ctx, weights, samples=self.options.samples, batch_size=batch_size)
        self._accumulate(Fisher(diagonal, 1.0, self.options.samples))

    def begin(self, ctx: Context) -> None:
        drifts = self._drifts(ctx)
        for name, drift in drifts.items():
            if name in self._fisher:
                self._fisher[name] = self._fisher[name].to(drift.weight.device)
        self._guarded = [(drift, self._fisher[name]) for name, drift in drifts.items() if name in self._fisher]
        if self._fisher and not self._guarded:
            ctx.events("warning", text="ewc: this stage trains none of the weights that were remembered")

    def edit_gradients(self, gradients: Gradients, ctx: Context) -> None:
        every = self.options.every
        strength = self.options.strength * every
        for drift, fisher, start, stop in self._pieces(ctx)[ctx.step % every :: every]:
            pull = drift.rows(start, stop)
            # strength · F · drift in one pass and in place
            torch.addcmul(pull.new_zeros(()), pull, fisher, value=strength, out=pull)
            drift.pull_back(start, stop, pull)

    def _pieces(self, ctx: Context) -> list[tuple[Drift, Tensor, int, int]]:
        """Each guarded weight with its Fisher in ranges of rows of even size, those of this process where sharded."""
        limit = CPU_CHUNK_ELEMENTS * torch.get_num_threads() if ctx.device.type == "cpu" else CHUNK_ELEMENTS
        pieces = []
        for drift, fisher in self._guarded:
            own, first = own_rows(fisher)
            own = own if own.ndim else own.view(1)
            pieces += [(drift, own[start - first : stop - first], start, stop) for start, stop in drift.chunks(limit)]
        return pieces

    def report(self) -> dict[str, Any]:
        return {"tasks": self._tasks, "guarded_weights": sum(fisher.numel() for _, fisher in self._guarded)}

    def state_dict(self) -> State:
        return {"tasks": self._tasks, **{_PREFIX + name: fisher for name, fisher in self._fisher.items()}}

    def load_state_dict(self, state: State) -> None:
        strange = [key for key in state if key != "tasks" and not key.startswith(_PREFIX)]
        if strange:
            raise ValueError(f"ewc: a state does not have {', '.join(strange)}")
        self._tasks = dict(state.get("tasks", {}))
        self._fisher = {key.removeprefix(_PREFIX): value for key, value in state.items() if key != "tasks"}

    def _accumulate(self, new: Fisher) -> None:
        """``F ← γ·F + F_new``; weights that either of the two does not cover count as zero there."""
        count = sum(diagonal.numel() for diagonal in new.diagonal.values())
        scale = count / new.trace if self.options.normalise and new.trace > 0 else 1.0
        for fisher in self._fisher.values():
            own_rows(fisher)[0].mul_(self.options.gamma)
        for name, diagonal in new.diagonal.items():
            known = self._fisher.get(name)
            own = own_rows(diagonal)[0]
            if known is None:
                own.mul_(scale)
                self._fisher[name] = diagonal
            else:
                self._fisher[name] = known.to(diagonal.device)
                own_rows(self._fisher[name])[0].add_(own, alpha=scale)

    def _drifts(self, ctx: Context) -> Mapping[str, Drift]:
        """The drift of each weight by the name under which its Fisher goes from stage to stage."""
        assert ctx.adaptation is not None
        drifts = {ctx.common_name(name): drift for name, drift in ctx.adaptation.drift().items()}
        for name, drift in drifts.items():
            known = self._fisher.get(name)
            if known is not None and known.shape != drift.weight.shape:
                told = f"{tuple(known.shape)} and is {tuple(drift.weight.shape)} in stage `{ctx.stage_name}`"
                raise RunFailed(f"mitigation ewc: {name} was remembered in shape {told}")
        return drifts

    def _weights(self, ctx: Context) -> dict[str, Tensor]:
        """Those of the weights that the model of ``ctx`` has: an earlier task's knows nothing of the new head."""
        there = {id(parameter) for parameter in ctx.model.parameters()}
        return {name: drift.weight for name, drift in self._drifts(ctx).items() if id(drift.weight) in there}
