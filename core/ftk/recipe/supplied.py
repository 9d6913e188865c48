"""What lies around a stage, and the capabilities that a recipe's data sets give by being there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ftk.recipe.specs import PartSpec

FROM_DATA = {
    "validation-data": ("validation", "train"),
    "retain-validation-data": ("retain_validation", "retain"),
    "test-data": ("test", "train"),
    "retain-test-data": ("retain_test", "retain"),
}
"""Capabilities that a key of ``[data]`` provides, or else the source behind another with its own split."""


@dataclass(frozen=True)
class Surroundings:
    """What lies around a stage.

    Attributes:
        model: the starting model's source; None where the recipe is wrong about it.
        has_earlier_stage: whether a stage comes before.
        top_data: the data sets at the recipe's top by key; None where the recipe is wrong about one.
        data: the data sets that hold in this stage, the same way.
        several: whether the recipe has more than one stage, or a sequence that can have more.
        earlier: the data sets of each stage before, by its name.
        taught: the objectives of all earlier tasks.
        measured: the evaluators of each earlier task, by its name.
        made: whether a sequence made the stage, so that what stands in its table is written for others too.
    """

    model: PartSpec | None
    has_earlier_stage: bool
    top_data: Mapping[str, PartSpec | None]
    data: Mapping[str, PartSpec | None]
    several: bool
    earlier: Mapping[str, Mapping[str, PartSpec | None]] = field(default_factory=dict)
    taught: Sequence[PartSpec] = ()
    measured: Mapping[str, Sequence[PartSpec]] = field(default_factory=dict)
    made: bool = False

    def validated(self) -> dict[str, bool]:
        """Of each earlier task, the retained one first, whether it has validation data."""
        seen = {name: "validation-data" in from_data(data) for name, data in self.earlier.items()}
        if "retain" in self.top_data:
            seen = {"retain": "retain-validation-data" in from_data(self.top_data), **seen}
        return seen


def from_data(data: Mapping[str, PartSpec | None]) -> frozenset[str]:
    """The capabilities that the data sets provide: by being there, as a split, or as nothing to validate."""
    found = set()
    for capability, (key, source) in FROM_DATA.items():
        spec = data.get(source)
        if (
            key in data
            or source not in data
            or (spec is not None and capability.removeprefix("retain-") in spec.provides())
        ):
            found.add(capability)
    return frozenset(found)


def mend_of(capability: str) -> str:
    """How to get what a key of ``[data]`` provides."""
    key, source = FROM_DATA[capability]
    rows = capability.removeprefix("retain-").removesuffix("-data")
    return f"add data.{key}, or a `data.{source}` source that keeps {rows} rows back itself"
