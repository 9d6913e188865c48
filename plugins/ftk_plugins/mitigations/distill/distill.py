"""Learning without Forgetting: what the stage's starting model predicts goes on being predicted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
import torch.distributed
from torch import Tensor
from torch.distributed.tensor import DTensor

from ftk import UserError
from ftk.parts import Batch, Context, Features, Knob, Loss, Mitigation, Objective, Source, State, Task
from ftk_plugins.mitigations.choosing import at_random, items_of
from ftk_plugins.mitigations.distill.heads import Lesson, lessons_of
from ftk_plugins.mitigations.distill.options import DistillOptions
from ftk_plugins.mitigations.predicted import Apart, can_refer, live, rows_of_targets
from ftk_plugins.mitigations.sharing import divided
from ftk_plugins.mitigations.stored import Stored, predict_all
from ftk_plugins.mitigations.taught import Fixed, Taught, refuse_unteachable
from ftk_plugins.objectives.token_loss import sum_of_logits


class Distill(Mitigation):
    """Adds ``weight · T²`` times the divergence from the starting model's predictions (Li and Hoiem 2016, eq. 2).

    Its state is the numbers of the earlier rows that it keeps, by task, and while a stage trains with a cached
    teacher, what that predicted.
    """

    def __init__(self, options: DistillOptions) -> None:
        self.options = options
        self.knob: Knob = Knob(options.weight)
        self._kept: dict[str, list[int]] = {}
        self._stored: dict[str, Stored] = {}
        self._lessons: dict[str, list[Lesson]] = {}
        self._spare: tuple[Objective, Features] | None = None
        self._has_asked = False
        self._told: dict[str, Any] = {}

    def remember(self, task: Task, ctx: Context) -> None:
        """Choose the rows of an earlier task that are mixed in, all of equal chance.

        Raises:
            UserError: the task has no rows, or nothing is predicted of them.
        """
        if self.options.rows == "new" or (self.options.tasks and task.name not in self.options.tasks):
            return
        refuse_unteachable(task, "distill")
        size = self.options.buffer_size
        self._kept[task.name] = sorted(
            at_random(len(task.train), ctx, "distill", task.name)[: None if size == "all" else size]
        )

    def begin(self, ctx: Context) -> None:
        """Find what the starting model is asked, and where the teacher is cached, ask it about every row.

        Raises:
            UserError: the teacher is to be cached, and rows are varied anew each time they are drawn.
        """
        self._lessons = {}
        if self.options.rows != "retained":
            for source, task in _own_sources(ctx).items():
                self._lessons[source] = lessons_of(task, ctx, self.options.tasks)
        self._is_live = self.options.teacher == "live" or (self.options.teacher == "auto" and can_refer(ctx))
        self._spare = self._spare_row(ctx) if self._is_live else None
        if not self._is_live and not self._stored:
            self._ask(ctx)
        if not self._kept and not any(self._lessons.values()):
            ctx.events(
                "warning", text=f"distill: stage `{ctx.stage_name}` starts from nothing that is known to be kept"
            )
        names = sorted({lesson.name for lessons in self._lessons.values() for lesson in lessons})
        size = sum(stored.bytes for stored in self._stored.values())
        self._told = {"teacher": "live" if self._is_live else "cached", "heads": names, "cached_bytes": size}

    def sources(self, ctx: Context) -> Sequence[Source]:
        """One source for each earlier task whose rows are kept; their shares add up to the option's."""
        tasks = self._earlier(ctx)
        return [
            Source(
                name=task.name,
                items=self._items(task),
                share=share,
                objective=Taught(task.objective, partial(self._taught, task), self.options.label_weight),
            )
            for task, share in zip(tasks, divided(self.options.share, [1.0] * len(tasks)), strict=True)
        ]

    def penalty(self, batch: Batch, loss: Loss, ctx: Context) -> Tensor | None:
        """The divergence on the stage's own rows of a batch, from what each head of the starting model says of them."""
        source = next((name for name, _ in batch.origins if name in self._lessons), None)
        if not batch.origins and self._lessons:
            source = next(iter(self._lessons))
        lessons = [] if source is None else self._lessons[source]
        if not self._has_asked:
            self._answer_together(bool(lessons), ctx)
        self._has_asked = False
        found = [self._divergence(lesson, str(source), batch, loss, ctx) for lesson in lessons]
        return self.knob.value * torch.stack(found).sum() if found else None

    def finish(self, ctx: Context) -> None:
        self._stored = {}

    rehearse_finish = finish

    def report(self) -> dict[str, Any]:
        return {**self._told, "rows": {name: len(rows) for name, rows in self._kept.items()}}

    def state_dict(self) -> State:
        stored = {key: value for name, each in self._stored.items() for key, value in each.state(name).items()}
        return {"rows": self._kept, "stored": list(self._stored), **stored}

    def load_state_dict(self, state: State) -> None:
        names = state.get("stored", [])
        self._stored = {name: Stored.of_state(state, name) for name in names}
        if strange := state.keys() - {"rows", "stored"} - {key for n, s in self._stored.items() for key in s.state(n)}:
            raise ValueError(f"distill: a state does not have {', '.join(sorted(strange))}")
        self._kept = {name: [int(row) for row in rows] for name, rows in state.get("rows", {}).items()}

    def _divergence(self, lesson: Lesson, source: str, batch: Batch, loss: Loss, ctx: Context) -> Tensor:
        """Of one head: summed over the targets of the source's rows, each of which weighs as it does in the loss."""
        origins = batch.origins or [(source, 0)] * len(next(iter(batch.inputs.values())))
        own = [name == source for name, _ in origins]
        asked, here, outputs = lesson.asked(batch, loss, ctx)
        rows = rows_of_targets(lesson.objective, asked)
        weights = torch.tensor(own, dtype=torch.float32, device=rows.device)
        if not lesson.own:  # what it is asked about a row counts together as much as the row does in the loss
            said = torch.bincount(rows, minlength=len(own))
            weights = weights * lesson.targets(batch, len(own)) / said.clamp(min=1)
        weights = weights[rows]
        if self._is_live or not batch.origins:
            apart = self._live(lesson.objective, asked, here)
        else:
            stored = self._stored[f"{source}|{lesson.name}"]
            numbers = [number if mine else 0 for mine, (_, number) in zip(own, origins, strict=True)]
            apart = self._of_stored(stored, numbers, rows, lesson.objective, ctx)
        return sum_of_logits(outputs, lambda logits, piece: apart(logits, piece) * weights[piece])

    def _taught(self, task: Task, batch: Batch, loss: Loss, rows: Sequence[int], ctx: Context) -> Tensor:
        """The lesson of an earlier task's rows."""
        if self._is_live:
            self._answer_together(True, ctx)
            self._has_asked = True
            apart = self._live(task.objective, batch, ctx)
        else:
            targets = rows_of_targets(task.objective, batch)
            apart = self._of_stored(self._stored[task.name], rows, targets, task.objective, ctx)
        return self.knob.value * sum_of_logits(loss.outputs, apart)

    def _spare_row(self, ctx: Context) -> tuple[Objective, Features] | None:
        """Where weights are sharded a row that the starting model can read, with its objective."""
        if not any(isinstance(parameter, DTensor) for parameter in ctx.model.parameters()):
            return None
        own = [task for source, task in _own_sources(ctx).items() if self._lessons.get(source)]
        rows = [(task.objective, task.train.items) for task in own]
        rows += [(task.objective, self._items(task)) for task in self._earlier(ctx)]
        return next(((objective, items[0]) for objective, items in rows), None)

    def _answer_together(self, asks: bool, ctx: Context) -> None:
        """See that the starting model, where it is sharded, is called by all processes in a pass or by none.

        Each calls this once in a pass, which need not be over rows of the same source in all: who asks nothing, while
        another does, has it read a row for nothing.

        Args:
            asks: whether this process goes on to ask it.
            ctx: the moment.
        """
        if self._spare is None:
            return
        told = torch.tensor(int(asks), device=ctx.device)
        torch.distributed.all_reduce(told, torch.distributed.ReduceOp.MAX)
        if told and not asks:
            objective, item = self._spare
            self._live(objective, objective.collate([item]).to(ctx.device), ctx)

    def _live(self, objective: Objective, batch: Batch, ctx: Context) -> Apart:
        known = objective.known(ctx.earlier)
        return live(objective, batch, ctx, self.options.temperature, self.options.divergence, known)

    def _of_stored(
        self, stored: Stored, numbers: Sequence[int], rows: Tensor, objective: Objective, ctx: Context
    ) -> Apart:
        options, lines = self.options, stored.lines(numbers, rows)
        known = objective.known(ctx.earlier)
        return stored.apart(objective.head, lines, options.temperature, options.divergence, known)

    def _ask(self, ctx: Context) -> None:
        """Have the starting model predict all that it will be asked about."""
        for source, task in _own_sources(ctx).items():
            if lessons := self._lessons.get(source):
                _refuse_varied(task)
            for lesson in lessons or ():
                self._keep(f"{source}|{lesson.name}", task.train.items, lesson.objective, ctx, lesson.collate)
        for task in self._earlier(ctx):
            self._keep(task.name, self._items(task), task.objective, ctx)

    def _keep(
        self,
        name: str,
        items: Sequence[Features],
        objective: Objective,
        ctx: Context,
        collate: Callable[[Sequence[Features]], Batch] | None = None,
    ) -> None:
        assert ctx.adaptation is not None
        here, options = ctx.through(objective), self.options
        # Where it can be gone back to; else nothing has moved yet.
        with ctx.adaptation.reference() if can_refer(ctx) else nullcontext():
            self._stored[name] = predict_all(
                items, objective, here.model, here,
                top_k=options.top_k, temperature=options.temperature, collate=collate,
            )  # fmt: skip

    def _earlier(self, ctx: Context) -> list[Task]:
        """The earlier tasks whose rows are mixed in."""
        return [task for task in ctx.earlier if task.name in self._kept]

    def _items(self, task: Task) -> Sequence[Features]:
        items = items_of(task, self._kept[task.name])
        return items if self._is_live else Fixed(items)


def _own_sources(ctx: Context) -> dict[str, Task]:
    """What the stage teaches, by the names of the sources that its rows are drawn from."""
    named = {f"train/{task.name.partition('/')[2]}": task for task in ctx.taught}
    return named if ctx.beside else dict(zip(["train"], ctx.taught, strict=False))


def _refuse_varied(task: Task) -> None:
    made = type(task.objective)
    if made.vary is not Objective.vary or made.augment is not Objective.augment:
        raise UserError(
            f"mitigation distill: the rows of `{task.name}` are varied anew each time they are drawn, so that nothing "
            "said of them beforehand would hold",
            'set teacher = "live", with an adaptation that can go back to the start (full: start_copy = "cpu")',
        )
