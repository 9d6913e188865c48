"""The objectives of a run: what their options leave to the training rows filled in, equal ones one object."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ftk.data.rows import Rows
from ftk.errors import UserError
from ftk.parts import Objective
from ftk.recipe.building import build, same_spec
from ftk.recipe.specs import PartSpec

if TYPE_CHECKING:
    from datasets import Dataset


class Objectives:
    """Builds objectives; one object for equal specs, so that their rows can share a batch."""

    def __init__(self) -> None:
        self._known: list[tuple[PartSpec, Objective]] = []

    def of(self, spec: PartSpec, alone: bool = False) -> Objective:
        """The objective that a spec builds; of one of several in a stage its ``alone``, so that it can be weighed."""
        for known, objective in () if alone else self._known:
            if same_spec(known, spec):
                return objective
        objective = build(spec, Objective)
        if not alone:
            self._known.append((spec, objective))
        return objective

    def completed(self, rows: Rows) -> Rows:
        """A task's rows under the objective that its training rows complete."""
        train = rows.roles["train"]
        spec = complete(rows.spec, rows.objective, train.rows, train.place)
        return rows if spec is rows.spec else replace(rows, spec=spec, objective=self.of(spec, bool(rows.member)))


def complete(spec: PartSpec, objective: Objective, rows: Dataset, place: str) -> PartSpec:
    """The spec of an objective with the options that it takes from training rows; the spec itself if there are none.

    Raises:
        UserError: the rows do not tell them; names the place.
    """
    try:
        values = objective.completed(rows)
    except UserError as error:
        raise UserError(f"{place}: {error.message}", error.hint) from error
    if not values:
        return spec
    options = type(spec.options).model_validate({**spec.options.model_dump(), **values})
    return replace(spec, options=options)
