"""Data sets that take their rows from the starting model: whether it has learned anything that it could tell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ftk.errors import Problem
from ftk.plugin.registry import Registry
from ftk.recipe.specs import PartSpec

TRAINED = "trained-model"
"""Provided by a model source whose models have been trained."""

Sets = Mapping[str, PartSpec | None]
"""Data sets by key, or probes by name; None where the recipe is wrong about one."""


def check_sampled(levels: Sequence[tuple[Sets, Sets]], model: PartSpec | None, registry: Registry) -> list[Problem]:
    """What is wrong with the data sets that need a model that has been trained.

    Args:
        levels: of the recipe's top and of each stage, the data sets and the probes.
        model: the starting model's source; None where the recipe is wrong about it.
        registry: the plugins to choose from.
    """
    if model is None or TRAINED in model.provides():
        return []
    givers = sorted({e.variant.name for e in registry.entries("model") if TRAINED in e.variant.provides})
    problems = [
        Problem(
            asking.path,
            f"`{asking.name}` takes its rows from the starting model, and that of `{model.name}` has learned nothing",
            f"models that have: {', '.join(givers)}; or name rows with another data set",
        )
        for sets in levels
        for each in sets
        for spec in each.values()
        for asking in _asking(spec)
    ]
    return list(dict.fromkeys(problems))


def _asking(spec: PartSpec | None) -> Iterator[PartSpec]:
    """A data set and its parts, those that ask for the starting model."""
    if spec is not None:
        if TRAINED in spec.needs():
            yield spec
        for part in spec.parts:
            yield from _asking(part)
