"""Methods against forgetting."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from torch import Tensor

from ftk.parts.gradients import Gradients
from ftk.parts.merging import MergeMethod
from ftk.parts.objective import Batch, Loss, Objective
from ftk.parts.part import Features, Part, State

if TYPE_CHECKING:
    from ftk.parts.context import Context
    from ftk.parts.examples import Task


@dataclass(frozen=True, slots=True)
class Course:
    """A share that changes as the stage goes on: in a straight line, and then as it is.

    Attributes:
        start: at the beginning, from 0.
        end: from where it no longer changes, from 0.
        over: how much of the stage it changes in, above 0 and at most 1.
    """

    start: float
    end: float
    over: float = 1.0

    def at(self, done: float) -> float:
        """The share when so much of the stage is done, 0 to 1."""
        return self.start + (self.end - self.start) * min(done / self.over, 1.0)

    def __mul__(self, part: float) -> Course:
        return Course(self.start * part, self.end * part, self.over)


@dataclass(frozen=True, slots=True)
class Source:
    """Rows that a mitigation mixes into training, or whose gradient it asks for beside it.

    Attributes:
        name: for reports and the seed of its order; unique among the mitigation's sources.
        items: the encoded rows to draw from, again and again in fresh orders.
        share: the share of the *final* mix, above 0, or how it changes; those of all sources sum to 0.99 at most.
        objective: what encoded the rows.
        reference_rows: above 0, with a share of 0: so many of the rows go through the model in each step, beside the
            mix; they are not trained on, and their gradient is in :attr:`ftk.parts.Gradients.references`.
    """

    name: str
    items: Sequence[Features]
    share: float | Course
    objective: Objective
    reference_rows: int = 0


@dataclass(slots=True)
class Knob:
    """How strongly a mitigation acts, which others may change while a stage trains; the more, the more is kept.

    The mitigation makes it of its option and reads :attr:`value` in every step. What somebody else has set is in the
    state of who set it: a mitigation's own state does not hold it.

    Attributes:
        value: the strength now; it begins as the recipe has it.
        minimum: the least that means something, from 0, where the method does not act at all.
        maximum: the most.
    """

    value: float
    minimum: float = 0.0
    maximum: float = math.inf


@dataclass(frozen=True, slots=True)
class Importance:
    """How much what is remembered depends on one weight, and what its drift costs; for the report.

    Both are sums over the elements that this process holds: all, unless the weight is sharded.

    Attributes:
        total: ``Σ Ω``, the importances of the weight's elements.
        cost: ``½ · Σ Ω · drift²``, without the strength.
    """

    total: float
    cost: float


Fill = Literal["zeros", "weights", "factor", "none"]
"""What rows are filled with: see :attr:`Mitigation.of_weights`."""


class Mitigation(Part):
    """A method against forgetting; lives for one stage, its state goes on to the next by the mitigation's name."""

    knob: Knob | None = None
    """Its strength, if it has one that can be turned. Needs the capability ``strength-knob``."""
    moves_weights: ClassVar[bool] = False
    """Whether its :meth:`after_step` changes weights: those act before the others, which see where the step has led."""

    of_weights: ClassVar[Mapping[str, Fill]] = {}
    """What of its state is of single weights, and how it grows where a longer recipe adds classes to a head.

    By the keys, in which ``*`` stands for the weight's :meth:`ftk.parts.Context.common_name`. What has the weight's
    rows gets more: of ``zeros`` they are 0, as importances are; of ``weights`` the weight's own, as in a copy. A
    ``factor``, with as many rows as the weight in each of its dimensions, is filled up with 0 in all of them. What
    has other rows than the weight is ``none`` of these. The core does it before :meth:`load_state_dict`, and gives
    weights that are called otherwise under the longer recipe their new names.
    """

    def take(self, methods: Mapping[str, MergeMethod]) -> None:
        """Take the methods of merging that the options name (`Options.merges`), right after it is built."""

    def remember(self, task: Task, ctx: Context) -> None:
        """Once per body of knowledge, before the first stage that this mitigation guards it in.

        The model is the stage's starting model with the adaptation attached and no drift yet.
        """

    def rehearse(self, task: Task, ctx: Context) -> None:
        """As :meth:`remember`, for planning: make what it would keep, and do the largest piece of its work once.

        The model and all that is computed from it have shapes and types, and no values: to read one raises. Override
        it where remembering reads values, or takes long.
        """
        self.remember(task, ctx)

    def rehearse_finish(self, ctx: Context) -> None:
        """As :meth:`finish`, for planning: hold what goes on to the next stage, of any values, and nothing else."""

    def begin(self, ctx: Context) -> None:
        """Before the first step of the stage, and again when a stage resumes from a checkpoint."""

    def sources(self, ctx: Context) -> Sequence[Source]:
        """Rows to mix into this stage's training, or to go through beside it.

        A pure function of options, state and context.
        """
        return ()

    def penalty(self, batch: Batch, loss: Loss, ctx: Context) -> Tensor | None:
        """An extra loss for this micro-batch: a SUM over the same targets as ``loss.total``; with its graph.

        Called between the forward and the backward pass of every micro-batch that is trained on, and of no other.
        """
        return None

    def read_gradients(self, gradients: Gradients, ctx: Context) -> None:
        """Look at the gradients of the step's loss before anybody edits them; change none. Under ``no_grad``.

        The loss is that of all rows of the step, those that mitigations mix in among them, with every penalty.
        """

    def edit_gradients(self, gradients: Gradients, ctx: Context) -> None:
        """Change the step's gradients in place, before clipping; under ``no_grad``.

        Here belongs whatever depends on the weights alone: once per optimizer step and without a graph.
        """

    def after_step(self, ctx: Context) -> None:
        """After the optimizer's step; under ``no_grad``."""

    def go_back(self, state: State) -> None:
        """The stage leaves the weights of an earlier step, its best: take what belongs to those weights from ``state``.

        Called before :meth:`finish`, with what :meth:`state_dict` gave after that step. What is summed up along the way
        to the weights belongs to them, an average of them too.
        """

    def finish(self, ctx: Context) -> None:
        """After the last step of the stage, before it is measured and exported."""

    def report(self) -> dict[str, Any]:
        """What the method says of itself in ``report.json``: JSON values, the same after a restart."""
        return {}

    def weigh(self, ctx: Context) -> Mapping[str, Importance]:
        """How important each weight is, where the method knows, by :meth:`ftk.parts.Context.common_name`.

        Asked once, after every mitigation has finished, under ``no_grad``; shown beside the drift of the stage.
        """
        return {}
