"""What the core tells a part about the moment in which it calls it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ftk.events import Events
from ftk.parts.adaptation import Adaptation
from ftk.parts.evaluator import Metric
from ftk.parts.examples import Task
from ftk.parts.gradients import Gradients
from ftk.parts.heads import Heads
from ftk.parts.objective import Objective
from ftk.parts.seeding import derive_seed

if TYPE_CHECKING:
    from ftk.parts.mitigation import Knob


@dataclass(frozen=True)
class Context:
    """The stage and the step a part is called in. Read-only; the core makes a new one where a value changes.

    Attributes:
        seed: the recipe's seed.
        stage: the number of the stage, from 1; 0 while the starting model is measured.
        stage_name: its name.
        step: optimizer steps done in this stage.
        steps: optimizer steps that the stage will take.
        model: the model with the adaptation attached, not wrapped for distribution. Where a part is handed a task
            or a batch whose head is not the stage's, that head's model over the same body.
        processor: its tokenizer or image processor.
        objective: the stage's objective; of one made of several that of ``task``.
        adaptation: the stage's adaptation; None while the starting model is measured.
        task: what the stage teaches, the first of several; None while the starting model is measured, and while
            mitigations remember what came before.
        beside: what it teaches beside that, where its objective is made of several.
        earlier: the bodies of knowledge that came before, the retained one first.
        device: where the model is.
        precision: ``fp32``, ``bf16`` or ``fp16``: the type that :meth:`autocast` computes in.
        micro_batch_size: rows that surely fit into one forward and backward pass.
        rank: this process, from 0.
        world_size: how many processes share the work.
        events: tells the observers.
        check_interrupt: call it between pieces of long work; raises when a signal asked the run to stop.
        measure: what :meth:`measure_task` calls.
        shared: what the evaluators of one measurement (one model as it stands, one task, one set of rows) share, by
            keys that name all it depends on; None outside of a measurement.
        loss_chunks: how many pieces an objective cuts its targets into, so that the outputs of all are never there
            at once; 1: none, for a caller whose hooks must hear all layers; None: as it thinks fit.
        label_smoothing: the share of each target that a loss spreads evenly over all classes while the model is in
            training mode; never in ``eval`` mode, in which losses are measured.
        heads: the models of the run's heads over one body; None where there is but ``model``.
        knobs: the strengths of the stage's mitigations that have one, by the mitigation's name.
        optimizer: what takes the stage's steps, once there is one; its state is to be read, as by :meth:`momentum`.
    """

    seed: int
    stage: int
    stage_name: str
    step: int
    steps: int
    model: nn.Module
    processor: Any
    objective: Objective
    adaptation: Adaptation | None
    task: Task | None
    earlier: Sequence[Task]
    device: torch.device
    precision: str
    micro_batch_size: int
    rank: int
    world_size: int
    events: Events
    check_interrupt: Callable[[], None]
    measure: Callable[[Context, Task, str], list[Metric]]
    shared: dict[Any, Any] | None = None
    loss_chunks: int | None = None
    label_smoothing: float = 0.0
    heads: Heads | None = None
    beside: Sequence[Task] = ()
    knobs: Mapping[str, Knob] = field(default_factory=dict)
    optimizer: torch.optim.Optimizer | None = None

    @property
    def taught(self) -> tuple[Task, ...]:
        """All that the stage teaches."""
        return (*(() if self.task is None else (self.task,)), *self.beside)

    def gradients(self) -> Gradients:
        """Of all that is trained: the live model, and what only the heads beside it have."""
        return Gradients(self.model, {} if self.heads is None else self.heads.beside)

    def through(self, objective: Objective) -> Context:
        """The same context with the model of this objective's head."""
        if self.heads is None or objective.head not in self.heads.models:
            return self
        return replace(self, model=self.heads.models[objective.head])

    def all_models(self) -> list[nn.Module]:
        """``model``, and those of the run's other heads."""
        return [self.model] if self.heads is None else list(self.heads.models.values())

    def common_name(self, name: str) -> str:
        """What to call a weight of the live model beyond this stage: see :meth:`ftk.parts.heads.Heads.common_name`."""
        return name if self.heads is None else self.heads.common_name(name)

    def momentum(self, parameter: nn.Parameter) -> Tensor | None:
        """The running mean of a parameter's gradients that the optimizer keeps; None before it has moved it once.

        Needs the capability ``momentum``.
        """
        kept = {} if self.optimizer is None else self.optimizer.state.get(parameter, {})
        found: Tensor | None = kept.get("exp_avg", kept.get("momentum_buffer"))
        return found

    def unknown_labels(self) -> tuple[str, ...]:
        """The labels of the live head that no task has taught, the stage's own counted: see ``Objective.known``."""
        known, labels = self.objective.known((*self.earlier, *self.taught)), self.objective.head.labels
        return () if known is None else tuple(label for index, label in enumerate(labels) if index not in known)

    def measure_task(self, task: Task, split: str) -> list[Metric]:
        """Measure a task on its ``validation`` or ``test`` rows, with the model as it stands.

        Where it has none, only evaluators with rows of their own have numbers: on ``validation`` those that measure
        while a stage trains.
        """
        return self.measure(self, task, split)

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision of training and measuring, as a context manager; nothing for ``fp32``."""
        if self.precision == "fp32":
            return nullcontext()
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[self.precision]
        return torch.autocast(self.device.type, dtype=dtype)

    def derived_seed(self, *keys: object) -> int:
        """A seed of 63 bits that depends on the recipe's seed, the stage and ``keys`` alone."""
        return derive_seed(self.seed, self.stage, *keys)

    def generator(self, *keys: object) -> torch.Generator:
        """A CPU random generator seeded by :meth:`derived_seed`."""
        return torch.Generator().manual_seed(self.derived_seed(*keys))
