"""Reads a recipe: a TOML file becomes frozen specs, or a list of everything that is wrong with it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ftk.errors import Problem, RecipeError, UserError, did_you_mean
from ftk.plugin.discovery import load_registry
from ftk.plugin.registry import Registry
from ftk.recipe.checking import check_followed, check_retained, check_stage
from ftk.recipe.complaints import show
from ftk.recipe.dividing import check_alike
from ftk.recipe.levels import PART_NAME, RETAIN_KEYS, Level, Reader
from ftk.recipe.measured import each_once
from ftk.recipe.members import sets_by_task
from ftk.recipe.origins import Unrolled
from ftk.recipe.overrides import STAGE_KEYS, TOP_KEYS, override
from ftk.recipe.sampled import check_sampled
from ftk.recipe.sequence import before_unrolling, unroll
from ftk.recipe.specs import DataSpec, PartSpec, Recipe, StageSpec
from ftk.recipe.supplied import Surroundings
from ftk.recipe.tested import check_tested
from ftk.recipe.training import Training

__all__ = ["DataSpec", "PartSpec", "Recipe", "StageSpec", "load_recipe", "recipe_from_table"]

SEEDS = 2**32


def load_recipe(
    path: str | Path,
    *,
    overrides: Sequence[str] = (),
    without: Sequence[str] = (),
    registry: Registry | None = None,
) -> Recipe:
    """Read and check a recipe; imports the options of the variants it names, and nothing heavy.

    Args:
        path: the TOML file.
        overrides: ``key=value`` settings, see :mod:`ftk.recipe.overrides`.
        without: names of mitigations to leave out.
        registry: what a recipe can name; everything installed where it is None.

    Raises:
        UserError: the file cannot be read.
        RecipeError: everything that is wrong with it.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text (byte {error.start})") from error
    except FileNotFoundError as error:
        near = did_you_mean(path.name, [found.name for found in path.parent.glob("*.toml")])
        raise UserError(f"{path}: there is no such file", near) from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecipeError(str(path), [_syntax_problem(str(error))]) from error
    return recipe_from_table(table, str(path), text, overrides=overrides, without=without, registry=registry)


def recipe_from_table(
    table: Mapping[str, Any],
    source: str,
    text: str,
    *,
    overrides: Sequence[str] = (),
    without: Sequence[str] = (),
    registry: Registry | None = None,
) -> Recipe:
    """Check a recipe's table and make a :class:`Recipe` of it; as :func:`load_recipe`, without the file.

    Args:
        table: what TOML gave.
        source: where it comes from, for messages.
        text: the recipe as it was written.
        overrides: as in :func:`load_recipe`.
        without: as in :func:`load_recipe`.
        registry: as in :func:`load_recipe`.
    """
    registry = registry or load_registry()
    early, late = before_unrolling(table, overrides)
    unrolled = unroll(override(table, source, early, ()), changed=bool(early))
    unrolled.table = override(unrolled.table, source, late, without)
    return _Recipe(unrolled, registry).read(source, text)


class _Recipe:
    """Reads the top of a recipe and its stages, gathering problems on the way."""

    def __init__(self, unrolled: Unrolled, registry: Registry) -> None:
        self.unrolled = unrolled
        self.table = unrolled.table
        self.registry = registry
        self.reader = Reader(registry)
        self.stages: list[StageSpec] = []

    def read(self, source: str, text: str) -> Recipe:
        table, reader = self.table, self.reader
        reader.problems += self.unrolled.problems
        reader.keys(table, "", TOP_KEYS)
        name, seed = self._name(table, "", 'write name = "my-run" at the top'), self._seed()
        model = self._model()
        top = reader.level({key: value for key, value in table.items() if key not in ("model", "stage")}, "", None)
        stages = self._stages(top, name)
        retain, validation, test = (top.data.get(key) for key in RETAIN_KEYS)
        for key in RETAIN_KEYS[1:]:
            if key in top.data and "retain" not in top.data:
                hint = "add data.retain: rows like these to learn from; or name these in data.probes instead"
                reader.add(f"data.{key}", "stands alone, without data.retain", hint)
        stages, kept = self._each_once(stages, top)
        notes = self._check(stages, top, model, kept)
        self.reader.problems += check_alike(self.stages) + check_followed(self.stages, self.registry)
        levels = (top, *(its for _, its in stages))
        named = [{part.path: part for spec in level.evaluators for part in spec.parts} for level in levels]
        sets = [({**level.data, **more}, level.probes) for level, more in zip(levels, named, strict=True)]
        self.reader.problems += check_tested(sets) + check_sampled(sets, model, self.registry)
        objective, evaluators = self._retained(stages, top)[0], kept
        if reader.problems or model is None or objective is None:
            raise RecipeError(source, self.unrolled.told(reader.problems))
        if not any(stage.evaluators for stage in self.stages):
            notes.append("there is no evaluator: nothing will be measured")
        return Recipe(
            name, seed, model, retain, validation, test, objective, evaluators, tuple(self.stages),
            source, text, tuple(notes),
        )  # fmt: skip

    def _name(self, table: Mapping[str, Any], prefix: str, hint: str) -> str:
        name = table.get("name")
        if name is None:
            self.reader.add(f"{prefix}name", "is missing", hint)
        elif not isinstance(name, str):
            self.reader.add(f"{prefix}name", f"must be text, got {show(name)}")
        elif not PART_NAME.fullmatch(name) or len(name) > 100:
            hint = "it names a folder: up to 100 letters, digits, `_`, `-`, `.`; the first no `-` and no `.`"
            self.reader.add(f"{prefix}name", f"{name!r:.60} cannot be used", hint)
        else:
            return name
        return ""

    def _seed(self) -> int:
        seed = self.table.get("seed", 0)
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < SEEDS:
            self.reader.add("seed", f"must be a whole number from 0 to {SEEDS - 1}, got {show(seed)}")
            return 0
        return seed

    def _model(self) -> PartSpec | None:
        if "model" not in self.table:
            self._missing("model", "")
            return None
        return self.reader.part("model", self.table["model"], "model")

    def _missing(self, key: str, prefix: str) -> None:
        kind = "dataset" if key.startswith("data") else key
        shape = '[data] train = { use = "..." }' if kind == "dataset" else f'[{key}] use = "..."'
        self.reader.add(f"{prefix}{key}", "is missing", f"write {shape}; {self.reader.choices(kind)}")

    def _stages(self, top: Level, name: str) -> list[tuple[StageSpec | None, Level]]:
        """Each stage, or None where it cannot be made, with what stands in its table."""
        if "stage" not in self.table:
            if name == "retain":
                self._refuse_retain("name")
            return [(self._stage(top, name, ""), top)]
        tables = self.table["stage"]
        if not isinstance(tables, list):
            self.reader.add("stage", f"must be a list of tables, got {show(tables)}", "write [[stage]]")
            return []
        if not tables and not self.unrolled.problems:
            self.reader.add("stage", "is empty", "add a [[stage]], or leave the key out for a recipe of one stage")
        found, names = [], set()
        for number, table in enumerate(tables, start=1):
            if not isinstance(table, dict):
                self.reader.add(f"stage.{number}", f"must be a table, got {show(table)}", "write [[stage]]")
                continue
            given = table.get("name")
            prefix = f"stage.{given if isinstance(given, str) and PART_NAME.fullmatch(given) else number}."
            name = self._name(table, prefix, 'every [[stage]] has a name: name = "..."')
            if name and name in names:
                prefix = f"stage.{number}."
                self.reader.add(f"{prefix}name", f"two stages have the name `{name}`", "give each its own")
            if name == "retain":
                self._refuse_retain(f"{prefix}name")
            names.add(name)
            hints = dict.fromkeys(("model", "seed", "stage"), "it stands outside the stages, at the top of the recipe")
            self.reader.keys(table, prefix, STAGE_KEYS, hints)
            level = self.reader.level(table, prefix, top)
            found.append((self._stage(level, name, prefix), level))
        return found

    def _refuse_retain(self, path: str) -> None:
        self.reader.add(path, "`retain` is the task of data.retain", "choose another name")

    def _stage(self, level: Level, name: str, prefix: str) -> StageSpec | None:
        for key in ("objective", "adaptation"):
            if key not in level.parts:
                self._missing(key, prefix)
        if "train" not in level.data:
            self._missing("data.train", prefix)
        objective, adaptation = level.parts.get("objective"), level.parts.get("adaptation")
        train = level.data.get("train")
        if objective is None or adaptation is None or train is None:
            return None
        probes = {key: spec for key, spec in level.probes.items() if spec is not None}
        data = DataSpec(train, level.data.get("validation"), level.data.get("test"), probes, level.overlap)
        training = level.training or Training()
        return StageSpec(name, objective, adaptation, data, level.mitigations, level.evaluators, training)

    def _each_once(
        self, stages: list[tuple[StageSpec | None, Level]], top: Level
    ) -> tuple[list[tuple[StageSpec | None, Level]], tuple[PartSpec, ...]]:
        """The stages and the retained task's evaluators, with each that measures rows of its own in one task alone."""
        retained = self._retained(stages, top)[1] if "retain" in top.data else ()
        kept, *others = each_once([retained, *(stage.evaluators if stage else () for stage, _ in stages)])
        return [
            (stage and replace(stage, evaluators=evaluators), level)
            for (stage, level), evaluators in zip(stages, others, strict=True)
        ], kept

    def _check(
        self,
        stages: list[tuple[StageSpec | None, Level]],
        top: Level,
        model: PartSpec | None,
        evaluators: tuple[PartSpec, ...],
    ) -> list[str]:
        """Hold the parts of each stage against each other; fills :attr:`stages` and returns the notes.

        Args:
            stages: each stage, or None where it cannot be made, with what stands in its table.
            top: what stands at the recipe's top.
            model: where the starting model comes from.
            evaluators: those of the retained task.
        """
        notes: list[str] = []
        found: dict[Problem, list[str]] = {}
        objective, _ = self._retained(stages, top)
        for index, (stage, level) in enumerate(stages):
            if stage is None:
                continue
            befores = [(before, its) for before, its in stages[:index] if before is not None]
            earlier = {name: sets for before, its in befores for name, sets in sets_by_task(before, its.data).items()}
            taught = [each for before, _ in befores for each in before.objective.parts or (before.objective,)]
            if objective is not None and "retain" in top.data:
                taught.append(objective)
            measured = {name: before.evaluators for before, its in befores for name in sets_by_task(before, its.data)}
            if "retain" in top.data:
                measured["retain"] = evaluators
            made = self.unrolled.made_of(stage.name) is not None
            around = Surroundings(
                model, index > 0, top.data, level.data, made or len(stages) > 1, earlier, taught, measured, made
            )
            stage, problems, new_notes = check_stage(stage, around, self.registry)
            self.stages.append(stage)
            notes += new_notes
            for problem in problems:
                found.setdefault(problem, []).append(stage.name)
        for problem, names in found.items():
            everywhere = len(names) == len(stages) or problem.path.startswith("stage.")
            where = "" if everywhere else f" (in {'stage' if len(names) == 1 else 'stages'} {', '.join(names)})"
            self.reader.add(problem.path, problem.reason + where, problem.hint)
        if stages and stages[0][0] is not None and model is not None and objective is not None:
            self.reader.problems += check_retained(
                objective, evaluators, self.stages[0], model, top.data, self.registry
            )
        return notes

    def _retained(
        self, stages: list[tuple[StageSpec | None, Level]], top: Level
    ) -> tuple[PartSpec | None, tuple[PartSpec, ...]]:
        """What reads and what measures the retained rows: the default, else the first stage's."""
        first = stages[0][1] if stages else top
        source = top if "objective" in top.parts else first
        measured = top if "evaluator" in self.table else first
        return source.parts.get("objective"), measured.evaluators


def _syntax_problem(text: str) -> Problem:
    """A problem of TOML's own error text, which ends in the place: ``(at line 3, column 5)``."""
    found = re.fullmatch(r"(.*) \(at (.*)\)", text, re.DOTALL)
    reason, place = found.groups() if found else (text, "")
    hint = 'text is written in quotes: key = "value"' if reason == "Invalid value" else ""
    return Problem(place, f"is not TOML: {reason[:1].lower()}{reason[1:]}", hint)
