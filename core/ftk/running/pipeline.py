"""The stations of a run: data, starting model, stages, scores, report; each taken up where it was left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import set_seed

from ftk.data.batches import pass_rows, refuse_idle_grouping, refuse_without_lengths
from ftk.data.encoding import Encoder
from ftk.data.members import divided
from ftk.data.objectives import Objectives
from ftk.data.overlap import report_overlap
from ftk.data.rows import Asked, RowReader, Rows
from ftk.data.starting import starting_model
from ftk.errors import Interrupted, UserError
from ftk.events import Events
from ftk.parts import Context, Examples, Head, ModelSource, Objective, State, Task, lengths_of
from ftk.parts.heads import Heads
from ftk.processes.hardware import forget_peak, resolve_precision
from ftk.processes.loading import Loading
from ftk.processes.placing import placement_of
from ftk.processes.sharding import make_mesh
from ftk.recipe.building import build
from ftk.recipe.measured import OWN_ROWS
from ftk.recipe.members import task_specs, tasks_of
from ftk.recipe.specs import PartSpec, Recipe
from ftk.report.scores import Scores
from ftk.running.continuing import take_up
from ftk.running.exporting import export_stage, model_places
from ftk.running.folder import RunFolder
from ftk.running.keeping import StageKeeper
from ftk.running.measuring import build_evaluator, measure_task, measure_tasks
from ftk.running.rehearsal import rehearse
from ftk.running.reporting import run_report, stage_facts
from ftk.running.stage import Stage
from ftk.running.watching import check_names


class Run:
    """One run under way.

    Args:
        recipe: what to run.
        folder: where to keep it.
        accelerator: this process and its peers.
        events: tells the observers.
        stop_requested: whether a signal asked the run to stop.
        keeper: knows stages that other runs have trained.
        choosing: whether the scores are to choose by, so that all is measured on validation rows and none on test rows.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: RunFolder | None,
        accelerator: Accelerator,
        events: Events,
        stop_requested: Callable[[], bool],
        keeper: StageKeeper | None = None,
        choosing: bool = False,
    ) -> None:
        self.choosing = choosing
        self.recipe = recipe
        self.folder = folder
        self.accelerator = accelerator
        self.events = events
        self.stop_requested = stop_requested
        self.keeper = keeper or StageKeeper()
        self.scores = Scores([spec.name for spec in task_specs(recipe)])
        self.stages: list[dict[str, Any]] = []
        self.corpus_read = False
        self.encoder = Encoder(events, self._check_interrupt)
        self.objectives = Objectives()
        self.mesh = make_mesh(accelerator) if folder and recipe.stages[0].training.sharding == "full" else None
        if folder:
            folder.checkpoints.mesh = self.mesh

    def run(self) -> dict[str, Any]:
        """Run every stage that has not finished, measure, and return the report."""
        folder = self.folder
        assert folder is not None
        started = time.time()
        status = "failed"
        self.events(
            "run_started", name=self.recipe.name, folder=str(folder.path), tasks=self.scores.tasks,
            stages=[stage.name for stage in self.recipe.stages], device=str(self.accelerator.device),
        )  # fmt: skip
        try:
            set_seed(self.recipe.seed)
            self.source = build(self.recipe.model, ModelSource)
            self.read_rows()
            self.keeper.place(self)
            left = take_up(self)
            self.scores, self.stages, done, carried = left.scores, left.stages, max(left.done, 0), left.carried
            heads = self.load(done)
            tasks = self.tasks(heads.processor)
            self.check(heads, tasks)
            if left.done < 0:
                self._measure_start(heads, tasks)
                self.keeper.keep(self, 0)
            measure_tasks(self.context(done, heads, tasks), [t for t in tasks if t.name in left.new], self.scores)
            check_names([stage.training for stage in self.recipe.stages], self.scores)
            for number in range(done + 1, len(self.recipe.stages) + 1):
                heads, carried = self._run_stage(number, self.turned(heads, number), tasks, carried)
                self.keeper.keep(self, number)
            report = run_report(self.recipe, "completed", self.scores, self.stages)
            if self.accelerator.is_main_process:
                folder.publish_model(len(self.recipe.stages), self.recipe.stages[-1].name)
                self.scores.outcomes.write(folder.path)
                folder.write_json("report.json", report)
            status = "completed"
            return report
        except Interrupted:
            status = "interrupted"
            raise
        finally:
            self.events("run_finished", status=status, seconds=round(time.time() - started, 3))

    def plan(self) -> list[dict[str, Any]]:
        """Set every stage up, each on the starting model, and count what it would do."""
        self.source = build(self.recipe.model, ModelSource)
        self.read_rows()
        plan = []
        for number, spec in enumerate(self.recipe.stages, start=1):
            heads = self.turned(self.load(), number)
            plan.append({"name": spec.name, **self.stage(number, heads, self.tasks(heads.processor), {}).plan()})
        return plan

    def read_rows(self) -> None:
        """Read the rows of every task, and tell of those that stand where they must not."""
        recipe = self.recipe
        self.events("phase", text="reading data")
        specs = task_specs(recipe)
        asked = [
            Asked(spec.name, self.objectives.of(spec.objective, spec.whole is not None), spec.objective, spec.data)
            for spec in specs
        ]
        device = self.accelerator.device
        starting = starting_model(self.source, recipe.model, recipe.seed, device, self.events, self._check_interrupt)
        self.reader = RowReader(self.encoder.cache, starting)
        own = self.reader.of_evaluators(evaluator for spec in specs for evaluator in spec.evaluators)
        self.rows = divided(specs, [self.objectives.completed(rows) for rows in self.reader.tasks(asked, own)])
        if self.choosing:
            self.rows = [rows.to_choose_by() for rows in self.rows]
        for rows, one in zip(self.rows, asked, strict=True):
            report_overlap(rows, one.data.overlap, self.encoder, self.events)

    def tasks(self, processor: Any) -> list[Task]:
        """Every task of the run in order, the retained one first."""
        specs = [spec.evaluators for spec in task_specs(self.recipe)]
        for rows, evaluators in zip(self.rows, specs, strict=True):
            if "test" not in rows.roles and any(OWN_ROWS not in spec.provides() for spec in evaluators):
                key = "data.retain_test" if rows.task == "retain" else "data.test"
                raise UserError(
                    f"task `{rows.task}` has evaluators, but no test data to measure on",
                    f"add {key}, or let the train source keep some rows back (test_fraction in `files` and `hub`)",
                )

        def task(rows: Rows, evaluators: Sequence[PartSpec]) -> Task:
            def read(part: PartSpec) -> Examples:
                return rows.examples(self.reader.read(part, "test"), processor, self.encoder)

            return rows.task_with(processor, tuple(build_evaluator(spec, read) for spec in evaluators), self.encoder)

        return [task(rows, evaluators) for rows, evaluators in zip(self.rows, specs, strict=True)]

    def check(self, heads: Heads, tasks: Sequence[Task]) -> None:
        """Find, before the first stage has trained, what would stop a later one: set up stages, encode rows.

        Raises:
            UserError: a row cannot be encoded, or a stage cannot be done with this model on this device.
        """
        to_do = list(enumerate(self.recipe.stages, start=1))[len(self.stages) :]
        for number, spec in to_do:
            for rows in self.rows[self.taught(number)]:
                refuse_idle_grouping(spec.training, rows.objective)
        rehearse([(spec, self.context(number, heads, tasks)) for number, spec in to_do], self.accelerator)
        self.events("phase", text="encoding rows")
        for number, spec in to_do:
            for task in tasks[self.taught(number)]:
                refuse_without_lengths(spec.training, task)
        for task in tasks:
            len(task.train.items)
            if task.validation is not None:
                len(task.validation.encoded)

    def load(self, done: int = 0, *, outline: bool = False, last: Path | None = None) -> Heads:
        """The models of all heads as ``done`` stages left them (the last: ``last``), or the starting ones' outlines."""

        def corpus() -> Iterator[str]:
            self.corpus_read = True
            for rows in self.rows:
                yield from rows.texts()

        places: dict[Head, Path | None] = {rows.objective.head: None for rows in self.rows}
        for number, spec in enumerate(self.recipe.stages[:done], start=1):
            assert self.folder is not None
            path = last if last and number == done else self.folder.model_path(number, spec.name)
            for head, place in model_places(path, self.heads(number)).items():
                places[head] = place
        asked, here = self.recipe.stages[0].training, self.accelerator
        precision = resolve_precision(asked.precision, here.device)
        placement = placement_of(asked.device_map, asked.max_memory, self.folder.path if self.folder else None)
        loading = Loading(self.source, self.recipe.seed, corpus, here, self.mesh, placement, precision, self.events)
        return loading.load(places, self.head(max(done, 1)), outline=outline)

    def context(self, number: int, heads: Heads, tasks: Sequence[Task]) -> Context:
        """The context of a stage before its adaptation is attached; stage 0 is the starting model."""
        spec = self.recipe.stages[max(number, 1) - 1]
        device = self.accelerator.device
        taught = tasks[self.taught(number)] if number else ()

        def longest() -> int:
            return max(int(lengths_of(task.train.items).max()) for task in tasks)

        return Context(
            seed=self.recipe.seed, stage=number, stage_name=spec.name if number else "start", step=0, steps=0,
            model=heads.model, processor=heads.processor, objective=self.objective(number),
            adaptation=None, task=taught[0] if taught else None, beside=tuple(taught[1:]),
            earlier=tuple(tasks[: self.taught(max(number, 1)).start]), device=device,
            precision=resolve_precision(spec.training.precision, device),
            micro_batch_size=pass_rows(spec.training, self.accelerator.num_processes, longest),
            rank=self.accelerator.process_index, world_size=self.accelerator.num_processes, events=self.events,
            check_interrupt=self._check_interrupt, measure=measure_task,
            loss_chunks=None if spec.training.loss_chunks == "auto" else spec.training.loss_chunks,
            label_smoothing=spec.training.label_smoothing, heads=heads,
        )  # fmt: skip

    def stage(self, number: int, heads: Heads, tasks: Sequence[Task], carried: dict[str, State]) -> Stage:
        """Set one stage up on the model it starts from, which is the live one."""
        ctx = self.context(number, heads, tasks)
        spec = self.recipe.stages[number - 1]
        return Stage(spec, ctx, self.accelerator, self.folder, carried, self.stop_requested)

    def _run_stage(
        self, number: int, heads: Heads, tasks: Sequence[Task], carried: dict[str, State]
    ) -> tuple[Heads, dict[str, State]]:
        """Run a stage, measure every task after it, and export the model that it leaves."""
        stage = self.stage(number, heads, tasks, carried)
        result = stage.run()
        measure_tasks(stage.ctx, tasks, self.scores)
        assert self.folder is not None
        self.events("phase", text=f"saving the model of stage {stage.spec.name}")
        facts = stage_facts(stage.spec.name, result, self.accelerator.device)
        forget_peak(self.accelerator.device)  # a peak is a stage's
        self.stages.append(facts)
        report = run_report(self.recipe, "running", self.scores, self.stages)
        states = {**result.states, "scores": self.scores.to_state()}
        members = self.heads(number)
        model = export_stage(stage, self.folder, members, self.source, states, report, self.recipe)
        self.events(
            "stage_finished", stage=number,
            **{key: facts[key] for key in ("name", "steps", "seconds", "tokens", "tokens_per_second")},
        )  # fmt: skip
        return heads.following(model), result.states

    def _measure_start(self, heads: Heads, tasks: Sequence[Task]) -> None:
        assert self.folder is not None
        measure_tasks(self.context(0, heads, tasks), tasks, self.scores)
        if self.accelerator.is_main_process:
            self.folder.finish_stage(0, "start", {"scores": self.scores.to_state()})
        self.accelerator.wait_for_everyone()

    def taught(self, number: int) -> slice:
        """Which of the run's tasks a stage teaches."""
        counts = [len(tasks_of(stage)) for stage in self.recipe.stages[:number]]
        start = (self.recipe.retain is not None) + sum(counts[:-1])
        return slice(start, start + counts[-1])

    def head(self, number: int) -> Head:
        """The head that a stage trains, the first of several."""
        return self.objective(number).head

    def heads(self, number: int) -> dict[Head, str]:
        """All heads that a stage trains, each with the name of the first of its tasks that has it."""
        found: dict[Head, str] = {}
        for rows in self.rows[self.taught(number)]:
            found.setdefault(rows.objective.head, rows.member)
        return found

    def turned(self, heads: Heads, number: int) -> Heads:
        """The models with those of a stage's heads live."""
        return heads.turned(self.head(number), self.heads(number))

    def objective(self, number: int) -> Objective:
        """The objective of a stage, the first of several; while the starting model is measured that of the first."""
        first: Rows = self.rows[self.taught(max(number, 1)).start]
        return first.objective

    def _check_interrupt(self) -> None:
        if self.stop_requested():
            raise Interrupted("interrupted; what was finished is saved")
