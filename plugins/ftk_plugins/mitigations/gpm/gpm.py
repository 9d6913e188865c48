"""Gradient projection memory: what layers were given on earlier tasks, they answer as they did."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ftk.parts import Context, Drift, Gradients, Mitigation, State, Task, evaluated, own_rows
from ftk_plugins.mitigations.earlier import refuse_empty
from ftk_plugins.mitigations.layers import inner, layers_of

from .inputs import Inputs
from .options import GpmOptions
from .spans import grown

BASIS, SEEN = "basis/", "seen/"


class Gpm(Mitigation):
    """Updates of a layer's weight lie across the inputs it had on earlier tasks (Saha et al. 2021, algorithm 1).

    For a weight ``(out, in)`` with the held directions ``M`` the gradient becomes ``G − (G M) Mᵀ``. An optimizer that
    scales the elements of a gradient undoes that, and so does weight decay; so the step that was taken is projected as
    well: of the drift, what lies in the span is taken back. Under LoRA the drift of ``s·B·A`` lies across the span if
    A's rows do, and A is what is projected: when the stage begins, its gradient in each step, and after the step.

    Of a table the rows that earlier rows looked up stay. Of a table that is the output layer too, both holds.

    Its state: ``basis/<weight>``, orthonormal columns, one for all weights with the same inputs; ``seen/<table>``;
    which weights belong to which basis, and which stay.
    """

    moves_weights = True
    of_weights = {f"{BASIS}*": "none", f"{SEEN}*": "none"}

    def __init__(self, options: GpmOptions) -> None:
        self.options = options
        self._bases: dict[str, Tensor] = {}
        self._seen: dict[str, Tensor] = {}
        self._basis_of: dict[str, str] = {}
        self._held: list[str] = []
        self._tasks = self._begun = 0
        self._kinds: dict[str, str] = {}
        self._factors: list[tuple[str, nn.Parameter]] = []

    def remember(self, task: Task, ctx: Context) -> None:
        """Hold the directions of the inputs that layers have on the rows of ``task``.

        Raises:
            UserError: the task has no training rows.
        """
        inputs, order, go_through, sharded = self._looking(task, ctx)
        threshold = min(1.0, self.options.threshold + self._tasks * self.options.growth)
        with inputs, evaluated(ctx.model), torch.no_grad():
            for place in order:  # every process the same ones, until it is known which layers have inputs in common
                go_through(place)
                if inputs.passed():
                    break
            for _ in inputs.groups():
                for place in order[ctx.rank :: ctx.world_size]:
                    go_through(place)
                if sharded and ctx.rank >= len(order) % ctx.world_size > 0:
                    go_through(order[0], counts=False)  # a sharded model answers only where all processes call it
                inputs.add_up(ctx)
                for site, moment in inputs.moments.items():
                    known = self._basis_of.get(site)
                    before = None if known is None else self._bases[known].to(moment.device)
                    self._bases[site] = grown(moment, before, threshold)
        self._take(inputs)

    def rehearse(self, task: Task, ctx: Context) -> None:
        """Hold all directions that inputs can have: which are held depends on values."""
        inputs, order, go_through, _ = self._looking(task, ctx)
        with inputs, evaluated(ctx.model), torch.no_grad():
            go_through(order[0])
            inputs.passed()
            for _ in inputs.groups():
                go_through(order[0])
                for site, moment in inputs.moments.items():
                    self._bases[site] = torch.linalg.eigh(moment).eigenvectors.float().contiguous()
        self._take(inputs)

    def _looking(self, task: Task, ctx: Context) -> tuple[Inputs, list[int], Callable[..., None], bool]:
        """What listens to the layers, the rows to go through, what goes through one; whether weights are sharded."""
        refuse_empty("gpm", task, f"which tell what layers are given on `{task.name}`")
        drifts = self._drifts(ctx)
        sharded = any(isinstance(drift.weight, DTensor) for drift in drifts.values())
        inputs = Inputs(ctx.model, {name: drift.weight for name, drift in drifts.items()}, self._basis_of)
        items = task.train.pieces
        order = torch.randperm(len(items), generator=ctx.generator("gpm", task.name))[: self.options.samples].tolist()

        def go_through(place: int, counts: bool = True) -> None:
            # By itself: padding, and what others make of a batch, is nothing to hold.
            ctx.check_interrupt()
            batch = task.objective.collate([items[place]]).to(ctx.device)
            inputs.listens = counts
            here = replace(ctx, precision=ctx.precision if sharded else "fp32", loss_chunks=1)
            with here.autocast():
                task.objective.loss(ctx.model, batch, here)

        return inputs, order, go_through, sharded

    def _take(self, inputs: Inputs) -> None:
        """Take in which weights share a basis, and what stays of the others."""
        self._basis_of |= inputs.sites
        used = set(self._basis_of.values())
        self._bases = {name: basis for name, basis in self._bases.items() if name in used}
        for name, seen in inputs.seen.items():
            self._seen[name] = seen | self._seen[name].to(seen.device) if name in self._seen else seen
        self._held = sorted({*self._held, *inputs.silent})
        self._tasks += 1

    @torch.no_grad()
    def begin(self, ctx: Context) -> None:
        """Bring what is held to where the weights are; of adapters that have not been trained yet, project A."""
        drifts = self._drifts(ctx)
        self._kinds = layers_of(ctx.model, {name: drift.weight for name, drift in drifts.items()})
        self._factors = []
        # Parameters and no views of them: several processes give a parameter another storage before the first step.
        parameters = ctx.gradients().parameters().values()
        trained = {_place(parameter): parameter for parameter in parameters if not isinstance(parameter, DTensor)}
        for name, drift in drifts.items():
            device, basis = drift.weight.device, self._basis_of.get(name)
            if basis is not None:
                self._bases[basis] = self._bases[basis].to(device)
                for each in drift.products():
                    factor = inner(self._kinds[name], each.left, each.right)
                    self._factors.append((name, trained[_place(factor)]))
            if name in self._seen:
                self._seen[name] = self._seen[name].to(device)
        if self._begun != ctx.stage:
            self._begun = ctx.stage
            self._project_factors()

    def edit_gradients(self, gradients: Gradients, ctx: Context) -> None:
        for name, factor in self._factors:
            if (basis := self._basis(name)) is not None and factor.grad is not None:
                take_out(factor.grad, basis)
        for name, drift in self._drifts(ctx).items():
            if drift.weight.requires_grad and drift.weight.grad is not None:
                gradient, first = own_rows(drift.weight.grad)
                self._take_out(name, drift, gradient.view(gradient.shape or drift.shape), first)

    def after_step(self, ctx: Context) -> None:
        """Take back what the step moved within the span; before it, nothing was moved there."""
        self._project_factors()
        for name, drift in self._drifts(ctx).items():
            held = self._basis(name) is not None or name in self._seen or self._stays(name)
            if not drift.weight.requires_grad or not held:
                continue
            own, first = own_rows(drift.weight)
            own = own.view(own.shape or drift.shape)
            whole = [(first, first + len(own))]  # of a transposed weight each output is a column
            for start, stop in whole if self._kinds.get(name) == "transposed" else drift.chunks():
                moved = drift.rows(start, stop)
                left = moved.clone()
                self._take_out(name, drift, left, start)
                rows = own[start - first : stop - first]
                rows.copy_(rows.float() + (left - moved))

    def report(self) -> dict[str, Any]:
        widths = [(basis.shape[1], basis.shape[0]) for basis in self._bases.values()]
        shares = [directions / inputs for directions, inputs in widths]
        tensors = (*self._bases.values(), *self._seen.values())
        return {
            "tasks": self._tasks,
            "held": round(sum(shares) / max(1, len(shares)), 4),
            "full": sum(share == 1 for share in shares),
            "bases": len(widths),
            "bytes": sum(tensor.numel() * tensor.element_size() for tensor in tensors),
        }

    def state_dict(self) -> State:
        return {
            "tasks": self._tasks,
            "begun": self._begun,
            "basis_of": dict(self._basis_of),
            "held": list(self._held),
            **{f"{BASIS}{name}": basis for name, basis in self._bases.items()},
            **{f"{SEEN}{name}": seen for name, seen in self._seen.items()},
        }

    def load_state_dict(self, state: State) -> None:
        plain = {"tasks", "begun", "basis_of", "held"}
        strange = [name for name in state if name not in plain and not name.startswith((BASIS, SEEN))]
        if strange or not plain <= state.keys():
            raise ValueError(f"gpm: a state has bases and what belongs to them, not {', '.join(strange) or 'less'}")
        self._tasks, self._begun = state["tasks"], state["begun"]
        self._basis_of, self._held = dict(state["basis_of"]), list(state["held"])
        self._bases = {name.removeprefix(BASIS): its for name, its in state.items() if name.startswith(BASIS)}
        self._seen = {name.removeprefix(SEEN): its for name, its in state.items() if name.startswith(SEEN)}

    def _drifts(self, ctx: Context) -> Mapping[str, Drift]:
        """By the names that weights have in every stage."""
        assert ctx.adaptation is not None
        return {ctx.common_name(name): drift for name, drift in ctx.adaptation.drift().items()}

    def _basis(self, name: str) -> Tensor | None:
        return self._bases.get(self._basis_of.get(name, ""))

    def _stays(self, name: str) -> bool:
        return self.options.others == "hold" and name in self._held

    def _take_out(self, name: str, drift: Drift, rows: Tensor, first: int) -> None:
        """Take what is held out of some rows of a weight's movement, or of its gradient, in place.

        Args:
            name: of the weight.
            drift: its drift.
            rows: one or more of them; of a transposed weight all that this process holds.
            first: the number of the first.
        """
        here = slice(first, first + len(rows))
        if (basis := self._basis(name)) is not None:
            if self._kinds[name] == "transposed":
                take_out(rows.mT, basis[here], summed=isinstance(drift.weight, DTensor))
            else:
                take_out(rows.flatten(1), basis)
        if name in self._seen:
            rows[self._seen[name][here]] = 0
        if self._stays(name):
            rows.zero_()

    def _project_factors(self) -> None:
        for name, factor in self._factors:
            if (basis := self._basis(name)) is not None:
                take_out(factor.data, basis)


def _place(tensor: Tensor) -> tuple[int, int]:
    """Where it begins; a parameter and its views of the same first element have the same."""
    return tensor.untyped_storage()._cdata, int(tensor.storage_offset())  # no pointer: in a plan there is no memory


def take_out(rows: Tensor, basis: Tensor, summed: bool = False) -> None:
    """Subtract from each row, in place, what of it lies in the span: ``rows − (rows M) Mᵀ``.

    Where ``summed`` each process has some of the columns, and these rows of the basis.
    """
    along = rows.float() @ basis
    if summed:
        torch.distributed.all_reduce(along)
    rows.sub_(along @ basis.T)
