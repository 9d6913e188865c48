"""From the data sets that a recipe names to the rows of each role, and rows that stand where they must not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ftk.errors import RunFailed, UserError
from ftk.parts import DatasetSource, Evaluator, Examples, Objective, Split, Task, Transform
from ftk.recipe.building import build
from ftk.recipe.specs import DataSpec, PartSpec

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Rows:
    """The rows of one task by role, not yet encoded; each with its place in the recipe."""

    task: str
    objective: Objective
    roles: Mapping[str, tuple[Dataset, str]]
    probes: Mapping[str, tuple[Dataset, str]] = field(default_factory=dict)

    def texts(self) -> Iterator[str]:
        """The plain texts of the training rows."""
        dataset, _ = self.roles["train"]
        for row in dataset:
            yield from self.objective.texts(row)

    def task_with(self, processor: Any, evaluators: tuple[Evaluator, ...]) -> Task:
        """The task, with a processor to encode it."""

        def examples(found: tuple[Dataset, str]) -> Examples:
            return Examples(found[0], self.objective, processor, found[1])

        roles = {role: examples(found) for role, found in self.roles.items()}
        probes = {name: examples(found) for name, found in self.probes.items()}
        return Task(self.task, self.objective, probes=probes, evaluators=evaluators, **roles)


def stage_rows(task: str, objective: Objective, data: DataSpec) -> Rows:
    """Read a stage's rows; a validation or test set that is not named comes from the train source's own split."""
    train = build(data.train, DatasetSource)
    roles = {"train": read(data.train, "train", train)}
    roles.update(_held_back(data.train, train, data.validation, data.test))
    probes = {name: read(spec, "test") for name, spec in data.probes.items()}
    return Rows(task, objective, roles, probes)


def retained_rows(objective: Objective, train: PartSpec, validation: PartSpec | None, test: PartSpec | None) -> Rows:
    """Read the rows of what the starting model knows, the task ``retain``; missing roles as in a stage."""
    source = build(train, DatasetSource)
    roles = {"train": read(train, "train", source)}
    roles.update(_held_back(train, source, validation, test))
    return Rows("retain", objective, roles)


def _held_back(
    train: PartSpec, source: DatasetSource, validation: PartSpec | None, test: PartSpec | None
) -> dict[str, tuple[Dataset, str]]:
    roles: dict[str, tuple[Dataset, str]] = {}
    splits: tuple[tuple[Split, PartSpec | None], ...] = (("validation", validation), ("test", test))
    for split, spec in splits:
        if spec is not None:
            roles[split] = read(spec, split)
        elif split in source.splits():
            roles[split] = read(train, split, source)
    return roles


def read(spec: PartSpec, split: Split, source: DatasetSource | None = None) -> tuple[Dataset, str]:
    """The rows of one data set with its transforms applied, and its place in the recipe.

    Raises:
        UserError: no rows are left, or the source says what is wrong.
    """
    try:
        rows = (source or build(spec, DatasetSource)).rows(split)
        for transform in spec.transforms:
            rows = build(transform, Transform).apply(rows)
    except UserError as error:
        raise UserError(f"{spec.path}: {error.message}", error.hint) from error
    except RunFailed:
        raise
    except Exception as error:
        raise RunFailed(f"{spec.path}: `{spec.use}` failed: {type(error).__name__}: {error}") from error
    if len(rows) == 0:
        raise UserError(f"{spec.path}: there are no rows", "look at the source's options: limits, filters, fractions")
    return rows, spec.path
