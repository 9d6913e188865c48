"""One stage of a run: from the model that the stage before left to the model that this one leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn

from ftk.data.batches import Batches
from ftk.data.mixing import Mixer
from ftk.disk.pieces import is_divided
from ftk.errors import Interrupted, RunFailed, UserError
from ftk.parts import Adaptation, Context, JointObjective, Source, State, lengths_of
from ftk.processes.balance import Balance
from ftk.processes.placing import follow, is_placed
from ftk.processes.several import SeveralHeads
from ftk.processes.sharding import is_sharded
from ftk.recipe.building import build
from ftk.recipe.checking import SOURCE_GRADIENTS
from ftk.recipe.naming import member_of
from ftk.recipe.specs import StageSpec
from ftk.recipe.training import DEFAULT_EPOCHS
from ftk.running.composition import OUTSIDE, Composition, build_named
from ftk.running.folder import RunFolder
from ftk.running.loop import Loop, Progress
from ftk.running.optimizing import build_optimizer, build_schedule, pack_optimizer, sizes_of, unpack_optimizer
from ftk.running.switches import Switches
from ftk.running.watching import Watch


@dataclass(frozen=True)
class StageResult:
    """What a stage leaves beside its model."""

    progress: Progress
    facts: dict[str, Any]
    states: dict[str, State]


class Stage:
    """One stage, set up on the model it starts from.

    Args:
        spec: its part of the recipe.
        ctx: the run's context for this stage, still without adaptation and steps; its model is the start.
        accelerator: distributes the work.
        folder: where checkpoints go; None where nothing is to be written.
        carried: the mitigations' states that the stage before left, and their ``composition``.
        stop_requested: whether a signal asked the run to stop.

    Raises:
        UserError: the adaptation does not fit the model, or would train weights held in float16; or an option of
            ``[training]`` cannot act on it.
    """

    def __init__(
        self,
        spec: StageSpec,
        ctx: Context,
        accelerator: Accelerator,
        folder: RunFolder | None,
        carried: Mapping[str, State],
        stop_requested: Callable[[], bool],
    ) -> None:
        self.spec = spec
        self.accelerator = accelerator
        self.folder = folder
        self.stop_requested = stop_requested
        self.carried = dict(carried)
        self.adaptation = build(spec.adaptation, Adaptation)
        if ctx.heads is not None and ctx.heads.beside:
            self.adaptation = SeveralHeads(self.adaptation, ctx.heads.beside)
        own = list(nn.ModuleList(ctx.all_models()).modules())
        set_seed(ctx.derived_seed("attach") % 2**32)
        try:
            model = self.adaptation.attach(ctx.model)
            follow(model, ctx.device)
            heads = ctx.heads.following(model) if ctx.heads else None
        except UserError as error:
            raise UserError(f"stage `{spec.name}`: {error.message}", error.hint) from error
        self.mitigations = Composition(build_named(spec.mitigations), ctx.device)
        knobs = self.mitigations.knobs()
        self.ctx = replace(ctx, model=model, adaptation=self.adaptation, heads=heads, knobs=knobs)
        if any(p.dtype == torch.float16 for p in self.ctx.gradients().parameters().values()):
            raise UserError(
                f"stage `{spec.name}`: the weights to train are held in float16, too narrow for small steps",
                'load the model in "float32"; training.precision = "fp16" computes in float16 all the same',
            )
        self.by_source = any(SOURCE_GRADIENTS in part.needs() for part in spec.mitigations)
        self.watch = Watch(spec.training)
        joint = build(spec.objective, JointObjective) if spec.objective.parts else None
        self.balance = Balance(joint, {member_of(task.name): task.objective for task in ctx.taught})
        self.switches = Switches(spec.training, self.ctx, own)

    def prepare(self) -> Loop:
        """Build optimizer, schedule and mixer, and take up the newest checkpoint or start by remembering.

        Raises:
            UserError: the training data are not those of the checkpoint.
        """
        options = self.spec.training
        groups = self.adaptation.param_groups(self.ctx.model, options.learning_rate)
        optimizer = build_optimizer(options, groups, self.ctx.model, self.ctx.device)
        saved = self.folder.checkpoints.latest(self.ctx.stage, self.ctx.events) if self.folder else None
        self.accelerator.wait_for_everyone()  # before the first of us writes a checkpoint that a peer would read
        self.progress = Progress()
        if saved:
            self._restore(saved[1], optimizer)
        else:
            self._remember()
        self.mitigations.begin(self.ctx)
        batches = Batches(self.mixer(), options)
        batches.mixer.begin(self.ctx)
        steps = self.steps(batches)
        self.ctx = replace(self.ctx, steps=steps, optimizer=optimizer)
        scheduler = build_schedule(options, optimizer, steps)
        if saved:
            scheduler.load_state_dict(saved[1]["schedule"])
            for group, rate in zip(optimizer.param_groups, scheduler.get_last_lr(), strict=True):
                group["lr"] = rate
        self.optimizer, self.scheduler, self._fingerprint = optimizer, scheduler, batches.mixer.fingerprint()
        if saved and saved[1]["progress"]["data"] != self._fingerprint:
            raise UserError(
                f"stage `{self.spec.name}`: the training data, or what its objective reads beside them, changed "
                f"since the checkpoint at step {saved[0]}",
                "bring the data back, or start over with --fresh",
            )
        if self.folder and not saved and self.mitigations.parts:
            self.save(self.progress)  # what was remembered is not computed again after an interruption
        # DistributedDataParallel exchanges what went through it, and other heads' models share but the body.
        self._several = len({objective.head for objective in batches.mixer.objectives()}) > 1
        return Loop(
            self.ctx, options, self.accelerator, self.prepared(self.ctx.model), batches, self.mitigations,
            optimizer, scheduler, self.save, self.check_saved, self.stop_requested, self.switches.around,
            self.prepared, self.by_source, self._several and self.ctx.world_size > 1, self.balance,
        )  # fmt: skip

    def prepared(self, model: nn.Module) -> nn.Module:
        """The model as training calls it: it exchanges the gradients of what is trained now."""
        if not is_sharded(model) and not is_placed(model) and not self._several:
            if self.ctx.world_size > 1:
                self.accelerator.free_memory()  # it keeps every model it has prepared
            model = cast(nn.Module, self.accelerator.prepare_model(model))
        return self.switches.compiled(model)

    def mixer(self) -> Mixer:
        """The stage's rows with its mitigations' sources mixed in."""
        sources, seed = self.mitigations.sources(self.ctx), self.ctx.derived_seed("mixer")
        return Mixer.of_tasks(self.ctx.taught, sources, seed, self.spec.training)

    def steps(self, batches: Batches) -> int:
        """How many optimizer steps the stage takes; epochs are rounded up to whole batches.

        Raises:
            UserError: its warm-up does not end before it.
        """
        options = self.spec.training
        steps = options.steps or max(1, batches.count(options.epochs or DEFAULT_EPOCHS))
        if (warmup := options.warmup_of(steps)) >= steps:
            raise UserError(
                f"stage `{self.spec.name}`: a warm-up of {warmup} steps leaves none of {steps} at the peak",
                "lower training.warmup_steps, or write a share: training.warmup = 0.03",
            )
        return steps

    def plan(self) -> dict[str, Any]:
        """What the stage would do, counted without training; nothing is remembered, only the shares are known."""
        taught = self.ctx.taught
        shares = {spec.name: spec.options.data_share() for spec in self.spec.mitigations}
        first = taught[0]  # stands for the rows of mitigations, of which only the share is known
        sources = [Source(name, first.train.items, share, first.objective) for name, share in shares.items() if share]
        batches = Batches(Mixer.of_tasks(taught, sources, 0), self.spec.training)
        trainable, total = sizes_of(self.adaptation, self.ctx.model)
        return {
            "rows": sum(len(task.train) for task in taught),
            "tokens_per_epoch": round(sum(float(lengths_of(t.train.items).sum()) * t.passes for t in taught)),
            "steps": self.steps(batches),
            "batch": self.spec.training.batch,
            "sources": [{"name": source.name, "share": source.share} for source in sources],
            "trainable_parameters": trainable,
            "total_parameters": total,
        }

    def save(self, progress: Progress) -> None:
        """Have a checkpoint written, while training goes on unless the processes write it together."""
        if self.folder is not None:
            states = self.states(progress)
            if self.accelerator.is_main_process or is_divided(states):
                keep, best = self.spec.training.keep_checkpoints, self.watch.kept(progress.history)
                told = partial(self._saved, progress.step)
                self.folder.checkpoints.save(self.ctx.stage, progress.step, states, keep, told, best)
        self.accelerator.wait_for_everyone()

    def states(self, progress: Progress) -> dict[str, State]:
        """Everything that the rest of the stage depends on, by part; what a checkpoint holds."""
        return {
            "adaptation": self.adaptation.state_dict(),
            "optimizer": pack_optimizer(self.optimizer, self._names()),
            "schedule": self.scheduler.state_dict(),
            "composition": self.mitigations.progress(),
            "progress": {**asdict(progress), "data": self._fingerprint},
            "objective": self.balance.state_dict(),
            **self.mitigations.states(),
        }

    def _saved(self, step: int, path: Path) -> None:
        self.ctx.events("checkpoint", stage=self.ctx.stage, step=step, path=str(path))

    def check_saved(self) -> None:
        """Tell of a checkpoint that has been written since; raises where it could not be."""
        if self.folder is not None:
            self.folder.checkpoints.check()

    def run(self) -> StageResult:
        """Train, and let the mitigations finish. The model is then what the stage leaves, still adapted."""
        loop = self.prepare()
        ctx = self.ctx
        trainable, total = sizes_of(self.adaptation, ctx.model)
        ctx.events(
            "stage_started", stage=ctx.stage, name=self.spec.name, steps=ctx.steps, first_step=self.progress.step,
            rows=sum(len(task.train) for task in ctx.taught), precision=ctx.precision,
            trainable_parameters=trainable, total_parameters=total,
        )  # fmt: skip
        self._train(loop)
        self._take_best()
        self._release()
        nn.ModuleList(ctx.all_models()).eval()
        self.mitigations.finish(replace(ctx, step=self.progress.step))
        mitigations = self.mitigations.report()
        for name, told in mitigations.items():
            ctx.events("mitigation", name=name, stage=ctx.stage, **told)
        facts = {
            "adaptation": self.spec.adaptation.use, "objective": self.spec.objective.use, "precision": ctx.precision,
            "trainable_parameters": trainable, "total_parameters": total, "mitigations": mitigations,
            **self.balance.facts(), **self.watch.facts(self.progress.step, ctx.steps, self.progress.history),
        }  # fmt: skip
        states = self.mitigations.states()
        earlier = self.carried.get("composition", {"remembered": {}, "seconds": {}})
        composition = {key: {**earlier[key], **value} for key, value in self.mitigations.progress().items()}
        return StageResult(self.progress, facts, {**self.carried, **states, "composition": composition})

    def _train(self, loop: Loop) -> None:
        """Train until what the loop has saved is on disk, also where a signal ended it."""
        if self.folder is None:  # as in the conformance suite, which trains and keeps nothing
            loop.train(self.progress)
            return
        try:
            loop.train(self.progress)
        except Interrupted:
            self.folder.checkpoints.settle()
            raise
        self.folder.checkpoints.settle()
        self.accelerator.wait_for_everyone()

    def _take_best(self) -> None:
        """Go back to the weights of the best evaluation, where the recipe keeps those and training went on."""
        best = self.watch.kept(self.progress.history)
        if best is not None and best != self.progress.step:
            assert self.folder is not None
            states = self.folder.checkpoints.read(best)
            self.adaptation.load_state_dict(states["adaptation"])
            self.mitigations.go_back(states)

    def _release(self) -> None:
        """Give back what only training needed, so that the next stage finds the model as a fresh load would be."""
        self.optimizer.state.clear()
        self.switches.release()
        self.accelerator.free_memory()  # it keeps every model it has prepared, and with it the buckets of gradients

    def _remember(self) -> None:
        if "composition" in self.carried:
            self.mitigations.load(self.carried, self.carried["composition"], self.ctx)
            self.mitigations.clock.set(dict.fromkeys([*self.mitigations.parts, OUTSIDE], 0.0))
        self.mitigations.remember(self.ctx.earlier, self.ctx)

    def _restore(self, states: Mapping[str, State], optimizer: torch.optim.Optimizer) -> None:
        try:
            self.adaptation.load_state_dict(states["adaptation"])
        except ValueError as error:
            raise RunFailed(f"stage `{self.spec.name}`: the checkpoint does not fit the model: {error}") from error
        unpack_optimizer(optimizer, self._names(), states["optimizer"])
        self.mitigations.load(states, states["composition"], self.ctx)
        self.balance.load_state_dict(states["objective"])
        progress = dict(states["progress"])
        del progress["data"]
        self.progress = Progress(**progress)

    def _names(self) -> dict[int, str]:
        beside = {} if self.ctx.heads is None else self.ctx.heads.beside
        return {id(p): name for name, p in (*self.ctx.model.named_parameters(), *beside.items())}
