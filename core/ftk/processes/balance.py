"""What the losses of a step are divided by over all processes, and those of several tasks are weighed with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from ftk.parts import Batch, Context, JointObjective, Loss, Objective, State


class Balance:
    """Divides a step's loss by the targets of the whole step; that of several tasks by each one's own.

    Of several tasks each has the mean over its targets, times its share of the step's rows and its weight. So rows
    of masked words and rows of one label count alike, and no cut into passes and processes changes the loss.

    Args:
        joint: weighs the tasks; None: there is one.
        members: the objective of each task, by its name in the stage.
    """

    def __init__(self, joint: JointObjective | None = None, members: Mapping[str, Objective] | None = None) -> None:
        self.joint = joint
        self._names = {id(objective): name for name, objective in (members or {}).items()}
        self._learns = joint is not None and type(joint).learn is not JointObjective.learn
        self._since: dict[str, tuple[torch.Tensor, int]] = {}

    def begin(self, drawn: Sequence[Objective], passes: Sequence[tuple[Objective, Batch]], ctx: Context) -> list[int]:
        """Begin a step: the targets of this process, to be summed over all of them and handed to :meth:`divide`.

        Args:
            drawn: the objective of each row of the step, of all processes.
            passes: this process's.
            ctx: the moment.
        """
        rows = Counter(map(self._key, drawn))
        self._shares = {key: count / len(drawn) for key, count in rows.items()}
        self._sums = {} if self.joint is None else {key: torch.zeros((), device=ctx.device) for key in rows}
        self._weights = {} if self.joint is None else dict(self.joint.weights())
        counts = Counter[int]()
        for objective, batch in passes:
            counts[self._key(objective)] += batch.count
        return [counts[key] for key in rows]

    def divide(self, counts: Sequence[int]) -> None:
        """Take the targets of all processes, in the order of :meth:`begin`."""
        self._counts = dict(zip(self._shares, counts, strict=True))

    def factor(self, objective: Objective) -> float:
        """What a sum of this objective's losses is multiplied by; times the targets of a step, it sums to 1."""
        count = self._counts[self._key(objective)]
        return self._shares[self._key(objective)] / count if count else 0.0

    def told_by(self, objective: Objective) -> float:
        """The same for what is told of several steps: where all targets count alike they do so over all steps."""
        return 1.0 if self.joint is None else self.factor(objective)

    def weighed(self, objective: Objective, loss: Loss) -> Loss:
        """The loss of a pass times the weight of its task."""
        if self.joint is None:
            return loss
        if loss.count:
            self._sums[id(objective)] += loss.total.detach()
        weight = self._weights.get(self._names.get(id(objective), ""), 1.0)
        return replace(loss, total=loss.total * weight)

    def finish(self, ctx: Context) -> None:
        """End a step: let the weights learn from the losses of all processes."""
        if self._sums and ctx.world_size > 1:
            sums = torch.stack(list(self._sums.values()))
            torch.distributed.all_reduce(sums)
            self._sums = dict(zip(self._sums, sums, strict=True))
        for key, total in self._sums.items():
            if (name := self._names.get(key)) is not None:
                before, count = self._since.get(name, (torch.zeros_like(total), 0))
                self._since[name] = before + total, count + self._counts[key]
        if self._learns and self.joint is not None:
            named = {self._names[key]: key for key in self._shares if key in self._names and self._counts[key]}
            losses = {name: float(self._sums[key]) / self._counts[key] for name, key in named.items()}
            self.joint.learn(losses, {name: self._shares[key] for name, key in named.items()})

    def state_dict(self) -> State:
        """What the weights have learned."""
        return {} if self.joint is None else self.joint.state_dict()

    def load_state_dict(self, state: State) -> None:
        """Take it back."""
        if self.joint is not None:
            self.joint.load_state_dict(state)

    def facts(self) -> dict[str, Any]:
        """What the report of a stage tells of it."""
        return {} if self.joint is None else {"weights": dict(self.joint.weights()), **self.joint.report()}

    def report(self) -> dict[str, Any]:
        """What the events tell of the steps since the last report: of each task its mean loss, and its weight now."""
        if self.joint is None:
            return {}
        weights = self.joint.weights()
        losses = {name: float(total) / max(count, 1) for name, (total, count) in self._since.items()}
        self._since.clear()
        return {"tasks": {name: {"loss": losses.get(name), "weight": weight} for name, weight in weights.items()}}

    def _key(self, objective: Objective) -> int:
        """Whose targets are counted together: all of a step, or where tasks are weighed those of each objective."""
        return 0 if self.joint is None else id(objective)
