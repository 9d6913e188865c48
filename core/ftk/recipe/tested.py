"""Transforms that compare training rows with the recipe's test rows: whether they stand where they can."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ftk.errors import Problem
from ftk.recipe.specs import PartSpec

TESTED = "test-texts"
"""The capability that the recipe's test sets give to transforms of training rows."""

Sets = Mapping[str, PartSpec | None]
"""Data sets by key, or probes by name; None where the recipe is wrong about one."""


def check_tested(levels: Sequence[tuple[Sets, Sets]]) -> list[Problem]:
    """What is wrong with the transforms that need test sets.

    Args:
        levels: of the recipe's top and of each stage, the data sets and the probes.
    """
    tested = any(_tests(data, probes) for data, probes in levels)
    problems: list[Problem] = []
    for data, probes in levels:
        for key, spec in [*data.items(), *((f"probes.{name}", spec) for name, spec in probes.items())]:
            for transform in _asking(spec):
                if key not in ("train", "retain"):
                    reason = f"`{transform.name}` takes test rows out of training rows, and these are not trained on"
                    problems.append(Problem(transform.path, reason, "put it beside data.train or data.retain"))
                elif not tested:
                    reason = f"`{transform.name}` compares with the recipe's test rows, and there are none"
                    hint = "add data.test, or a `data.train` source that keeps test rows back itself"
                    problems.append(Problem(transform.path, reason, hint))
    return list(dict.fromkeys(problems))


def _tests(data: Sets, probes: Sets) -> bool:
    """Whether there is a test set, named, of an evaluator, or kept back by a source."""
    sources = [spec for key in ("train", "retain") if (spec := data.get(key)) is not None]
    named = bool(probes) or any(key in ("test", "retain_test") or key.endswith(".data") for key in data)
    return named or any("test-data" in spec.provides() for spec in sources)


def _asking(spec: PartSpec | None) -> Iterator[PartSpec]:
    """The transforms of a data set that ask for test sets."""
    return (transform for transform in (spec.all_transforms() if spec else ()) if TESTED in transform.needs())
