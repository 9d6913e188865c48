"""Elastic weight consolidation: a pull against the drift, stiff where earlier tasks depend on the weight."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from ftk.parts import CHUNK_ELEMENTS, Context, Gradients, Importance, State, Task, add_up, own_rows
from ftk_plugins.mitigations.measured import MeasuredPull
from ftk_plugins.mitigations.pieces import Piece

from .allowance import CALIBRATED, PERIOD, Allowance
from .anchors import LEAN, START, Anchors
from .factors import Factors, factors_of, pieces_of
from .fisher import Estimate
from .measured import Probe
from .options import EwcOptions
from .sums import COLUMNS, ROWS

ALLOWANCE = "allowance"
HALVINGS = 7
"""How often the share of the drift that keeps to the allowance is halved in on, where the stage ends above it."""


class Ewc(MeasuredPull):
    """Adds the gradient of ``½ · strength · Σ F · drift²`` to each step (Kirkpatrick et al. 2017, eq. 3).

    ``F`` is one running sum over the tasks remembered (online EWC, Schwarz et al. 2018, section 4), and the
    anchor is the model at the stage's start. Its state is ``F`` by weight, of some kinds in two factors, and what was
    measured of each task.

    With ``allowed_loss`` the strength is what holds the rise of the remembered tasks' losses at the allowance; its
    state then is that of an :class:`Allowance` too.
    """

    of_weights = {
        "fisher/*": "zeros", f"fisher/*{ROWS}": "factor", f"fisher/*{COLUMNS}": "none",
        f"{LEAN}*": "zeros", f"{START}*": "weights",
    }  # fmt: skip

    def __init__(self, options: EwcOptions) -> None:
        super().__init__(
            "ewc",
            strength=options.strength,
            every=options.every,
            gamma=options.gamma,
            normalise=options.normalise,
            kept="fisher/",
            dtype=getattr(torch, options.dtype),
        )
        self.options = options
        self._factors: dict[str, Factors] = {}
        self._closed: list[Piece] = []
        self._how = Estimate(options.samples, options.fisher_batch_size, options.labels, options.fisher)
        self._allowance = None if options.allowed_loss is None else Allowance(options.allowed_loss, options.strength)
        if self._allowance is not None:
            self.knob = None  # it is turned from within
        self._probes: dict[str, Probe] = {}
        self._sharded = False
        self._anchors = Anchors(self.dtype) if options.anchors == "separate" else None
        self._leans: list[Piece] = []

    def estimate(self, task: Task) -> Estimate:
        return self._how

    def remember(self, task: Task, ctx: Context) -> None:
        self._rebase(ctx)
        super().remember(task, ctx)
        if self._allowance is not None:
            self.tasks[task.name]["stage"] = ctx.stage

    def rehearse(self, task: Task, ctx: Context) -> None:
        self._rebase(ctx)
        super().rehearse(task, ctx)

    def accumulate(self, new: Mapping[str, Tensor], scale: float = 1.0) -> None:
        if self._anchors is not None:
            self._anchors.fade(self.gamma)
        super().accumulate(new, scale)

    def begin(self, ctx: Context) -> None:
        drifts = self.drifts(ctx)
        self._sharded = any(isinstance(drift.weight, DTensor) for drift in drifts.values())
        self._factors = factors_of(drifts, self.importances)
        if self._anchors is not None:
            self._leans = self._anchors.pieces(drifts, CHUNK_ELEMENTS)
        self._closed = pieces_of(list(self._factors.values()), CHUNK_ELEMENTS)
        super().begin(ctx)
        if self._allowance is None or not self.tasks:  # in a rehearsal there are none
            return
        batch_size = self._how.batch_size or ctx.micro_batch_size
        self._probes = {
            task.name: Probe(
                task, ctx, self._how.samples, batch_size, int(self.tasks[task.name].get("stage", ctx.stage))
            )
            for task in ctx.earlier
            if task.name in self.tasks
        }
        if self._allowance.stage != ctx.stage:
            self._allowance.begin(ctx.stage, self._losses(ctx), self._losses(ctx, few=True))

    def edit_gradients(self, gradients: Gradients, ctx: Context) -> None:
        if self._allowance is not None and self._probes and ctx.step % PERIOD == 0:
            form = self._form(ctx)
            if ctx.step % CALIBRATED == 0:
                self._allowance.calibrate(form, self._losses(ctx, few=True))
            self._allowance.turn(form, ctx.step, ctx.steps)
        super().edit_gradients(gradients, ctx)

    @torch.no_grad()
    def finish(self, ctx: Context) -> None:
        if self._allowance is None or not self._probes:
            return
        assert ctx.adaptation is not None
        losses = self._losses(ctx)
        self._allowance.finish(self._form(ctx), losses)
        if self._allowance.holds(losses):
            return
        least, most = 0.0, 1.0
        for _ in range(HALVINGS):
            middle = (least + most) / 2
            ctx.adaptation.scale(middle)
            if self._allowance.holds(self._losses(ctx)):
                least = middle
            else:
                most = middle
        ctx.adaptation.scale(least)
        self._allowance.step_back(least, self._losses(ctx))

    def strength(self) -> float:
        return super().strength() if self._allowance is None else self._allowance.strength

    def pieces(self, ctx: Context) -> list[Piece]:
        return [*self._closed, *self._leans, *super().pieces(ctx)]

    def count(self) -> int:
        return super().count() + sum(each.drift.weight.numel() for each in self._factors.values())

    def weigh(self, ctx: Context) -> Mapping[str, Importance]:
        found = dict(super().weigh(ctx))
        for name, each in self._factors.items():
            cost = sum(float(piece.cost()) for piece in pieces_of([each], CHUNK_ELEMENTS))
            found[name] = Importance(float(each.own_total()), cost)
        return found

    def report(self) -> dict[str, Any]:
        forms = Counter("factored" if each.rows.ndim == 1 else "kfac" for each in self._factors.values())
        held = {} if self._allowance is None else self._allowance.report()
        return {**super().report(), "forms": {"diagonal": len(self.guarded), **forms}, **held}

    def state_dict(self) -> State:
        state = {**super().state_dict(), **({} if self._anchors is None else self._anchors.state_dict())}
        if self._allowance is None:
            return state
        return {**state, ALLOWANCE: asdict(self._allowance)}

    def load_state_dict(self, state: State) -> None:
        state = dict(state)
        known = state.pop(ALLOWANCE, {})
        state = state if self._anchors is None else self._anchors.take(state)
        super().load_state_dict(state)
        if self._allowance is not None:
            self._allowance = Allowance(**{**asdict(self._allowance), **known, "allowed": self._allowance.allowed})

    def remembered_shape(self, name: str) -> tuple[int, ...] | None:
        if name + ROWS in self.importances:
            return len(self.importances[name + ROWS]), len(self.importances[name + COLUMNS])
        return super().remembered_shape(name)

    def _rebase(self, ctx: Context) -> None:
        """Where tasks have anchors of their own, the stage's start is farther from those of earlier ones."""
        if self._anchors is None:
            return
        drifts = self.drifts(ctx)
        factors = factors_of(drifts, self.importances)

        def times(name: str, moved: Tensor) -> Tensor | None:
            if name in factors:
                return factors[name].times(moved)
            known = self.importances.get(name)
            return None if known is None else own_rows(known)[0].to(moved.device) * moved

        self._anchors.rebase(ctx.stage, drifts, times)

    def _losses(self, ctx: Context, few: bool = False) -> dict[str, float]:
        """The mean loss of each task remembered, in nats for each target."""
        return {name: probe.loss(ctx, few) for name, probe in self._probes.items()}

    def _form(self, ctx: Context) -> float:
        """``½ · Σ F · drift²`` over all weights, and over the processes where these are sharded."""
        costs = [piece.cost().to(ctx.device) for piece in self.pieces(ctx)]
        own = float(torch.stack(costs).sum()) if costs else 0.0
        return add_up([own], ctx)[0] if self._sharded else own
