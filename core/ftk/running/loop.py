"""The optimizer step, and the loop of steps that is a stage's training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import nn

from ftk.data.batches import Batches, as_batch, by_source, pass_tokens, passes
from ftk.data.mixing import Drawn
from ftk.errors import Interrupted, RunFailed
from ftk.parts import Batch, Context, Gradients, Loss, Objective, add_up
from ftk.parts.comparing import Comparison
from ftk.parts.seeding import seed_torch
from ftk.processes.balance import Balance
from ftk.processes.sharding import average_whole, is_sharded
from ftk.recipe.training import Training
from ftk.report.blame import what_broke
from ftk.report.meter import Meter
from ftk.running.composition import Composition
from ftk.running.watching import Watch


@dataclass
class Progress:
    """How far a stage has come; JSON values, kept in its checkpoints."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    scaler: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Loop:
    """Trains one stage.

    Attributes:
        ctx: the stage's context.
        options: its ``[training]``.
        accelerator: distributes it; one process or several.
        model: the model as the accelerator prepared it.
        batches: the rows of each step.
        mitigations: what acts on the steps.
        optimizer: over the trainable parameters.
        scheduler: of its learning rate.
        save: has a checkpoint written, while training goes on.
        check_saved: raises where a checkpoint could not be written.
        stop_requested: whether a signal asked the run to stop.
        around: what the forward pass that trains on a micro-batch runs in.
        prepare: prepares a model whose set of trained parameters has changed as ``model`` was.
        by_source: whether a mitigation needs the gradient of each source apart.
        averages: whether the step averages all gradients over the processes, because the model was not prepared to.
        balance: what the losses of a step are divided by, and of several tasks weighed with.
    """

    ctx: Context
    options: Training
    accelerator: Accelerator
    model: nn.Module
    batches: Batches
    mitigations: Composition
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    save: Callable[[Progress], None]
    check_saved: Callable[[], None]
    stop_requested: Callable[[], bool]
    around: Callable[[Batch], AbstractContextManager[Any]] = lambda batch: nullcontext()
    prepare: Callable[[nn.Module], nn.Module] = lambda model: model
    by_source: bool = False
    averages: bool = False
    balance: Balance = field(default_factory=Balance)

    def train(self, progress: Progress) -> None:
        """Go from ``progress`` to the stage's last step, or to where it no longer improves.

        Raises:
            Interrupted: a signal came; the checkpoint is saved.
            RunFailed: the loss or the gradient is not finite.
            UserError: an evaluation lacks the metric that the recipe goes by.
        """
        gradients = self.ctx.gradients()
        meter = Meter(self.ctx.device, progress)
        scaler = torch.amp.GradScaler(self.ctx.device.type, enabled=self.ctx.precision == "fp16")
        if progress.scaler:
            scaler.load_state_dict(progress.scaler)
        for model in (self.model, *self.ctx.all_models()):
            model.train()
        watch = Watch(self.options)
        if watch.due(progress.step, self.ctx.steps, progress.history) and self.evaluate(watch, progress):
            self.save(progress)
        meter.restart()
        while progress.step < self.ctx.steps and not watch.exhausted(progress.history):
            self.check_saved()
            ctx = replace(self.ctx, step=progress.step)
            if ctx.adaptation is not None and ctx.adaptation.before_step(ctx):
                gradients, self.model = ctx.gradients(), self.prepare(ctx.model)
            rate = float(self.scheduler.get_last_lr()[0])
            stop, norm = self.step(ctx, gradients, scaler, meter)
            progress.step += 1
            due = self.options.checkpoint_every and progress.step % self.options.checkpoint_every == 0
            measure = watch.due(progress.step, ctx.steps, progress.history)
            last = progress.step == ctx.steps
            if progress.step % self.options.log_every == 0 or last or due or stop or measure:
                kept = gradients.parameters().values() if last or due or stop or measure else ()
                self.hold_finite(meter, ctx, kept)
                meter.report(ctx, rate, norm, self.balance.report())
                progress.scaler = scaler.state_dict()
            better = measure and not stop and self.evaluate(watch, progress)
            last = last or watch.exhausted(progress.history)
            if last or due or stop or better:
                self.save(progress)
            if stop and (measure or not last):
                raise Interrupted(f"interrupted in stage `{ctx.stage_name}` after step {progress.step}; saved")
            if measure:
                meter.restart()

    def evaluate(self, watch: Watch, progress: Progress) -> bool:
        """Measure every task so far: whether the weights as they stand are those that the stage would leave.

        Raises:
            Interrupted: a signal came; the checkpoint is saved, and this evaluation is made when the run goes on.
        """
        ctx = replace(self.ctx, step=progress.step)
        if ctx.world_size > 1:  # they must measure together; a signal is heeded at the next step
            ctx = replace(ctx, check_interrupt=lambda: None)
        try:
            entry = [watch.measure(ctx, progress.tokens)]
        except Interrupted:
            self.save(progress)
            raise
        progress.history += broadcast_object_list(entry)  # all go by one process's numbers, and so end together
        return watch.kept(progress.history) == progress.step

    def step(
        self, ctx: Context, gradients: Gradients, scaler: torch.amp.GradScaler, meter: Meter
    ) -> tuple[bool, torch.Tensor]:
        """One optimizer step: whether a signal asked to stop, and the gradient's norm before clipping."""
        gradients.restart()
        self.look_back(ctx, gradients, scaler)
        seed_step(ctx)
        rows = self.batches.rows(ctx.step)
        sources = self.micro_batches(rows, ctx)
        passes = [one for batches in sources.values() for one in batches]
        stop = self.agree(self.balance.begin([source.objective for source, _ in rows], passes, ctx), ctx)
        trace = meter.begin_step(ctx)
        comparison = self.compared(passes, self.batches.mixer.objectives(), ctx)

        def counted(objective: Objective, batch: Batch, loss: Loss, here: Context) -> torch.Tensor:
            loss = self.balance.weighed(objective, loss)
            total = self.mitigations.penalty(batch, loss, here)
            if batch.count:
                told = self.balance.told_by(objective)
                meter.add(loss.total.detach() * told, batch.count * told, batch.tokens)
                trace.losses.append(loss.total.detach())
                trace.totals.append(total.detach())
            return total * self.balance.factor(objective)

        for source, batches in sources.items():
            self.go_through(batches, comparison, counted, ctx, gradients, scaler)
            if self.by_source:
                gradients.set_aside(source)
        self.balance.finish(ctx)
        gradients.scale = scaler.get_scale()
        if self.by_source:
            gradients.join(gradients.scale)
        scaler.unscale_(self.optimizer)
        self.mitigations.read_gradients(gradients, ctx)
        if ctx.adaptation is not None:
            with torch.no_grad():
                ctx.adaptation.edit_gradients(gradients, ctx)
        trace.norms += self.mitigations.edit_gradients(gradients, ctx)
        norm = gradients.clip_(self.options.max_grad_norm)
        trace.norms.append(norm)
        scaler.step(self.optimizer)
        scaler.update()
        self.scheduler.step()
        if ctx.adaptation is not None:
            with torch.no_grad():
                ctx.adaptation.after_step(ctx)
        self.optimizer.zero_grad(set_to_none=True)
        self.mitigations.after_step(ctx)
        return stop, norm

    def look_back(self, ctx: Context, gradients: Gradients, scaler: torch.amp.GradScaler) -> None:
        """Set the gradients aside that mitigations ask for of rows which the step does not train on."""
        for rows in self.batches.mixer.references(ctx.step):
            source, _ = rows[0]
            seed_torch(ctx.derived_seed(source.name, ctx.step, ctx.rank), ctx.device)
            batches = [one for its in self.micro_batches(rows, ctx).values() for one in its]
            comparison = self.compared(batches, [source.objective], ctx)
            share = 1 / max(1.0, add_up([sum(batch.count for _, batch in batches)], ctx)[0])
            self.go_through(batches, comparison, lambda *of: of[2].total * share, ctx, gradients, scaler)  # noqa: B023
            gradients.keep(source.name, scaler.get_scale())

    def go_through(
        self,
        passes: Sequence[tuple[Objective, Batch]],
        comparison: Comparison,
        counted: Callable[[Objective, Batch, Loss, Context], torch.Tensor],
        ctx: Context,
        gradients: Gradients,
        scaler: torch.amp.GradScaler,
    ) -> None:
        """Make passes that end with one exchange of their gradients, those of what ``counted`` makes of each loss."""
        sharded = is_sharded(ctx.model)
        for index, (objective, batch) in enumerate(passes, start=1):
            here = ctx.through(objective)
            with self.synced(sharded or index == len(passes)):
                called = self.model if here.model is ctx.model else here.model
                loss = comparison.loss(objective, called, batch, here)
                total = counted(objective, batch, loss, here)
                # None for a pass that is only made together with others.
                scaler.scale(total * (ctx.world_size if batch.count else 0.0)).backward()  # type: ignore[no-untyped-call]
            del loss, total  # its logits would lie in memory beside the next micro-batch's
        if sharded or self.averages:
            average_whole(gradients)

    def hold_finite(self, meter: Meter, ctx: Context, weights: Iterable[nn.Parameter]) -> None:
        """Stop where a number of the steps since the last report is not finite, or what they leave to be kept."""
        stations = self.mitigations.acting("penalty"), self.mitigations.acting("edit_gradients")
        if reason := what_broke(meter.traces, *stations, ctx, self.options, weights):
            raise RunFailed(reason)

    def micro_batches(self, rows: Sequence[Drawn], ctx: Context) -> dict[str, list[tuple[Objective, Batch]]]:
        """This process's micro-batches of a step's rows, each with its objective; by source where one asks."""
        tokens = None
        if self.options.batch_tokens is not None:
            tokens = pass_tokens(self.options, ctx.world_size)
        collated: dict[str, list[tuple[Objective, Batch]]] = {}
        for source, its in (by_source(rows) if self.by_source else {"": rows}).items():
            collated[source] = []
            for objective, items, counts in passes(its, ctx.micro_batch_size, tokens, ctx.rank, ctx.world_size):
                batch = as_batch(objective, items).to(ctx.device)
                collated[source].append((objective, batch if counts else replace(batch, count=0, tokens=0)))
        return collated

    def compared(
        self, passes: Sequence[tuple[Objective, Batch]], objectives: Sequence[Objective], ctx: Context
    ) -> Comparison:
        """What the rows of a step that are compared with each other give to each pass."""
        model = self.model if ctx.world_size == 1 else ctx.model  # the wrapper would exchange buffers in each pass
        return Comparison(model, passes, objectives, ctx, self.around)

    def agree(self, counts: Sequence[int], ctx: Context) -> bool:
        """Count targets over all processes, and tell whether any was asked to stop."""
        told = [*counts, int(self.stop_requested())]
        if ctx.world_size > 1:
            summed = torch.tensor(told, device=ctx.device)
            torch.distributed.all_reduce(summed)
            told = summed.tolist()
        *counts, stop = told
        self.balance.divide(counts)
        return bool(stop)

    def synced(self, last: bool) -> AbstractContextManager[Any]:
        """Gradients are exchanged in the last micro-batch of a step only; those of a sharded model in each."""
        return nullcontext() if last else self.accelerator.no_sync(self.model)


def seed_step(ctx: Context) -> None:
    """Make the randomness of a step (dropout) a pure function of seed, stage, step and process."""
    seed_torch(ctx.derived_seed("step", ctx.step, ctx.rank), ctx.device)
