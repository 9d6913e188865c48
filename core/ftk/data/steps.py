"""What rows go through before they are encoded: the transforms of a data set, in order, and what each did."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ftk.data.keys import part_key
from ftk.data.pieces import piece_size, rows_of
from ftk.data.roles import RoleRows, Step, texts_of
from ftk.errors import FtkError, RunFailed, UserError
from ftk.parts import Evaluator, Objective, Transform
from ftk.recipe.building import build
from ftk.recipe.specs import PartSpec
from ftk.recipe.tested import TESTED

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Tested:
    """A test set, and what reads its rows."""

    found: RoleRows
    objective: Objective | Evaluator
    spec: PartSpec

    def texts(self) -> Iterator[str]:
        """The plain texts of its rows."""
        for texts in texts_in(self.found, self.objective):
            yield from texts


class Chain:
    """The transforms of a data set.

    Args:
        specs: the transforms.
        tests: every test set of the recipe, for those that ask for them.
        kept_back: whether the rows are some that a training source keeps back to be measured on.
    """

    def __init__(self, specs: Sequence[PartSpec], tests: Sequence[Tested] = (), kept_back: bool = False) -> None:
        parts = [(spec, build(spec, Transform)) for spec in specs]
        self._parts = [
            (spec, part) for spec, part in parts if not (kept_back and (part.training_only() or TESTED in spec.needs()))
        ]
        self._tests = tests
        self._kept_back = kept_back

    def of_part(self, specs: Sequence[PartSpec]) -> Chain:
        """The transforms of a part of the data set, for rows of the same role."""
        return Chain(specs, self._tests, self._kept_back)

    def key(self) -> list[Any]:
        """What the result depends on beside the rows, as JSON values."""
        seen = [[test.found.place, test.found.key, part_key(test.spec)] for test in self._tests]
        keys = []
        for spec, part in self._parts:
            with told(spec):
                keys.append([part_key(spec), part.identity(), seen if TESTED in spec.needs() else []])
        return keys

    def placed(self, source: PartSpec, steps: Sequence[Step]) -> tuple[Step, ...]:
        """Steps of the same source, if it told of one, and transforms, as they are called in this recipe."""
        specs = [spec for spec, _ in self._parts]
        specs = specs if len(steps) == len(specs) else [source, *specs]
        return tuple(replace(step, place=spec.path, name=spec.name) for spec, step in zip(specs, steps, strict=True))

    def apply(self, rows: Dataset) -> tuple[Dataset, tuple[Step, ...]]:
        """The rows that come out, and what each transform did.

        Raises:
            UserError: a transform cannot act, or leaves no rows; names its place.
        """
        from datasets import Dataset

        steps = []
        for spec, part in self._parts:
            if TESTED in spec.needs():
                self._show_tests(spec, part)
            with told(spec):
                changed: Any = part.apply(rows)
                effects = tuple(part.effects())
            if not isinstance(changed, Dataset):
                raise RunFailed(f"{spec.path}: `{spec.use}` gave a {type(changed).__name__}, not a datasets.Dataset")
            steps.append(Step(spec.path, spec.name, len(rows), len(changed), effects))
            if rows and not changed:
                why = "; ".join(f"{effect.rows} {effect.reason}" for effect in effects if effect.fate == "dropped")
                raise UserError(
                    f"{spec.path}: `{spec.name}` leaves none of {len(rows)} rows{f': {why}' if why else ''}",
                    "look at its options, or leave it out",
                )
            rows = changed
        return rows, tuple(steps)

    def _show_tests(self, spec: PartSpec, part: Transform) -> None:
        if not self._tests:
            raise UserError(
                f"{spec.path}: `{spec.name}` compares with the recipe's test rows, and there are none",
                "put it beside data.train in a recipe that has data.test",
            )
        for test in self._tests:
            with told(spec, but=test.found.place):
                part.see_tests(test.found.place, test.texts())


def texts_in(found: RoleRows, objective: Objective | Evaluator) -> Iterator[list[str]]:
    """The plain texts of each row of a role."""
    size = piece_size(found.rows)
    for start in range(0, len(found.rows), size):
        yield from texts_of(rows_of(found.rows, start, start + size), objective, found.place, start + 1)


@contextmanager
def told(spec: PartSpec, but: str = "") -> Iterator[None]:
    """Errors of a source or a transform say where it stands in the recipe; those that begin with ``but`` say enough."""
    try:
        yield
    except UserError as error:
        if but and error.message.startswith(but):
            raise
        raise UserError(f"{spec.path}: {error.message}", error.hint) from error
    except FtkError:
        raise
    except Exception as error:
        raise RunFailed(f"{spec.path}: `{spec.use}` failed: {type(error).__name__}: {error}") from error
