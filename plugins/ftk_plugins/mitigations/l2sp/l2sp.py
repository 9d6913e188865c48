"""L2-SP: a pull of every weight to its starting point, and of what is new to zero."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ftk import UserError
from ftk.parts import Context, Drift, Gradients, State
from ftk_plugins.mitigations.l2sp.displaced import Displaced
from ftk_plugins.mitigations.l2sp.options import L2spOptions
from ftk_plugins.mitigations.pulling import Pull

_PREFIX = "start/"


class L2sp(Pull):
    """Adds the gradient of ``α/2 · Σ (W − W₀)² + β/2 · Σ W²`` to each step (Li et al. 2018, eq. 3).

    The first sum is over the weights that have a start, the second over those that are new: drawn anew by the model
    source, and not learned in an earlier stage. With the run's start as anchor, what was new once stays so.

    Its state is, with the run's start as anchor, a copy of each weight as it was then, and the names of the new ones.
    """

    of_weights = {f"{_PREFIX}*": "weights"}

    def __init__(self, options: L2spOptions) -> None:
        super().__init__("l2sp", strength=options.strength, every=options.every)
        self.options = options
        self._decay = _Decay("l2sp", strength=options.new_strength, every=options.every)
        self._starts: dict[str, Tensor] = {}
        self._new: list[str] = []
        self._known = False

    def guard(self, drifts: Mapping[str, Drift], ctx: Context) -> Sequence[tuple[Drift, Tensor | None]]:
        """As :meth:`Pull.guard`.

        Raises:
            UserError: the run's start is not known, or its weights are in few bits.
        """
        assert ctx.adaptation is not None
        drawn = new_weights(ctx)
        moving = {id(p) for group in ctx.adaptation.param_groups(ctx.model, 1.0) for p in group["params"]}
        from_run = self.options.anchor == "run"
        fresh = [name for name, drift in drifts.items() if id(drift.weight) in drawn]
        self._new = [*dict.fromkeys([*(self._new if from_run else ()), *fresh])]
        if from_run:
            self._take_starts(drifts, ctx)
        guarded: list[tuple[Drift, Tensor | None]] = []
        self._decay.found = []
        for name, drift in drifts.items():
            moves = id(drift.weight) in moving
            if name in self._new:
                self._decay.found.append(Displaced(drift, moves, None))
            else:
                guarded.append((Displaced(drift, moves, self._starts[name]) if from_run else drift, None))
        return guarded

    def begin(self, ctx: Context) -> None:
        super().begin(ctx)
        self._decay.begin(ctx)
        if not self.guarded:
            told = f"l2sp: no weight that stage `{ctx.stage_name}` trains has a start, so all are pulled to zero"
            ctx.events("warning", text=told)

    def edit_gradients(self, gradients: Gradients, ctx: Context) -> None:
        super().edit_gradients(gradients, ctx)
        self._decay.edit_gradients(gradients, ctx)

    def report(self) -> dict[str, Any]:
        return {**super().report(), "new_weights": self._decay.report()["guarded_weights"]}

    def state_dict(self) -> State:
        if self.options.anchor == "stage":
            return {}
        return {"new": self._new, **{_PREFIX + name: start for name, start in self._starts.items()}}

    def load_state_dict(self, state: State) -> None:
        strange = [key for key in state if key != "new" and not key.startswith(_PREFIX)]
        if strange:
            raise ValueError(f"l2sp: a state does not have {', '.join(strange)}")
        self._known = "new" in state
        self._new = list(state.get("new", []))
        self._starts = {key.removeprefix(_PREFIX): value for key, value in state.items() if key != "new"}

    def _take_starts(self, drifts: Mapping[str, Drift], ctx: Context) -> None:
        """Copy the weights that no stage has moved so far."""
        if ctx.stage > 1 and not self._known:
            raise UserError(
                f'mitigation l2sp: anchor = "run" needs the run\'s start, and stage `{ctx.stage_name}` is the first '
                "in which it stands",
                "write it outside of the stages, so that it is there from the first on, or take the stage's start",
            )
        for name, drift in drifts.items():
            weight = drift.weight.detach()
            if not weight.is_floating_point():
                raise UserError(
                    f'mitigation l2sp: anchor = "run" reads the base weights, and {name} is held in few bits',
                    'write anchor = "stage", which reads the drift alone',
                )
            kept = self._starts.get(name)
            if name not in self._new:
                self._starts[name] = weight.clone() if kept is None else kept.to(weight.device)
        self._known = True


class _Decay(Pull):
    """The pull at what is new, to zero."""

    found: list[Drift]

    def guard(self, drifts: Mapping[str, Drift], ctx: Context) -> Sequence[tuple[Drift, Tensor | None]]:
        return [(drift, None) for drift in self.found]


def new_weights(ctx: Context) -> set[int]:
    """The ``id`` of each parameter that the model source drew anew and that no earlier stage has learned.

    A weight that the models of several heads share is learned by any stage before, one of a head's own by a stage
    that taught a task with that head.
    """
    models = {ctx.objective.head: ctx.model} if ctx.heads is None else dict(ctx.heads.models)
    learned = {task.objective.head for task in ctx.earlier if task.name != "retain"}
    owners = Counter(id(parameter) for model in models.values() for parameter in model.parameters())
    found: set[int] = set()
    for head, model in models.items():
        drawn = set(getattr(model, "fresh_weights", ()))
        for name, parameter in model.named_parameters():
            own = len(models) > 1 and owners[id(parameter)] == 1
            if name.replace(".base_layer.", ".") in drawn and not (head in learned if own else learned):
                found.add(id(parameter))
    return found
