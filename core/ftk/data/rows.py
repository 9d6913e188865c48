"""From the data sets that a recipe names to the rows of each role."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ftk.data.encoding import Encoder
from ftk.data.roles import RoleRows, texts_of
from ftk.errors import RunFailed, UserError
from ftk.parts import DatasetSource, Evaluator, Examples, Objective, Split, Task, Transform
from ftk.recipe.building import build
from ftk.recipe.specs import DataSpec, PartSpec


@dataclass(frozen=True)
class Rows:
    """The rows of one task by role, not yet encoded.

    Attributes:
        task: its name.
        objective: reads them.
        spec: what the objective was built from.
        roles: ``train``, and ``validation`` and ``test`` where there are such rows.
        probes: further test sets by name.
    """

    task: str
    objective: Objective
    spec: PartSpec
    roles: Mapping[str, RoleRows]
    probes: Mapping[str, RoleRows] = field(default_factory=dict)

    def texts(self) -> Iterator[str]:
        """The plain texts of the training rows."""
        train = self.roles["train"]
        for texts in texts_of(train.rows, self.objective, train.place):
            yield from texts

    def task_with(self, processor: Any, evaluators: tuple[Evaluator, ...], encoder: Encoder) -> Task:
        """The task, with a processor to encode it."""

        def examples(found: RoleRows) -> Examples:
            encode = partial(encoder.encoded, found, self.spec, self.objective, processor)
            return Examples(found.rows, self.objective, processor, found.place, encode)

        roles = {role: examples(found) for role, found in self.roles.items()}
        probes = {name: examples(found) for name, found in self.probes.items()}
        return Task(self.task, self.objective, probes=probes, evaluators=evaluators, **roles)


def stage_rows(task: str, objective: Objective, spec: PartSpec, data: DataSpec) -> Rows:
    """Read a stage's rows; a validation or test set that is not named comes from the train source's own split."""
    train = build(data.train, DatasetSource)
    roles = {"train": read(data.train, "train", train)}
    roles.update(_held_back(data.train, train, data.validation, data.test))
    probes = {name: read(spec, "test") for name, spec in data.probes.items()}
    return Rows(task, objective, spec, roles, probes)


def retained_rows(
    objective: Objective, spec: PartSpec, train: PartSpec, validation: PartSpec | None, test: PartSpec | None
) -> Rows:
    """Read the rows of what the starting model knows, the task ``retain``; missing roles as in a stage."""
    source = build(train, DatasetSource)
    roles = {"train": read(train, "train", source)}
    roles.update(_held_back(train, source, validation, test))
    return Rows("retain", objective, spec, roles)


def _held_back(
    train: PartSpec, source: DatasetSource, validation: PartSpec | None, test: PartSpec | None
) -> dict[str, RoleRows]:
    roles: dict[str, RoleRows] = {}
    splits: tuple[tuple[Split, PartSpec | None], ...] = (("validation", validation), ("test", test))
    for split, spec in splits:
        if spec is not None:
            roles[split] = read(spec, split)
        elif split in source.splits():
            roles[split] = read(train, split, source)
    return roles


def read(spec: PartSpec, split: Split, source: DatasetSource | None = None) -> RoleRows:
    """The rows of one data set with its transforms applied.

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
    return RoleRows(rows, spec.path)
