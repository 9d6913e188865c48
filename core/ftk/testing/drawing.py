"""The contract of what training makes of a row anew each time it draws it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from ftk.parts import Features, Objective
from ftk.testing.subject import Subject, hold


def varies_by_its_generator_alone(subject: Subject) -> None:
    """`augment` and `vary` give the same for the same row and generator, and leave all rows as they are."""
    objective, processor = subject.build(), subject.processor()
    rows = list(subject.examples(objective).encoded)
    for item, what in itertools.product(rows, ("augment", "vary")):
        before = [{name: array.copy() for name, array in row.items()} for row in rows]
        one, same = (
            objective.vary(item, processor, np.random.default_rng(7))
            if what == "vary"
            else _augmented(objective, item, rows, processor, 7)
            for _ in range(2)
        )
        hold(one and one.keys() == same.keys(), f"`{what}` gives other features the second time, or none")
        for name, array in one.items():
            hold(np.array_equal(array, same[name]), f"{name} differs though the generator starts the same")
        for row, kept in zip(rows, before, strict=True):
            for name, array in kept.items():
                hold(name in row and np.array_equal(array, row[name]), f"{name} was changed in a row that was given")


def augmented_rows_go_with_others(subject: Subject) -> None:
    """What `augment` gives is varied and collated like any row and beside one, and has as many targets."""
    objective, processor = subject.build(), subject.processor()
    rows = list(subject.examples(objective).pieces)
    if type(objective).vary is not Objective.vary:
        return  # how many targets a row has may then be drawn with the rest
    for seed, row in enumerate(rows):
        augmented = _augmented(objective, row, rows, processor, seed)
        plain, alone, beside = (objective.collate(items).count for items in ([row], [augmented], [row, augmented]))
        hold(alone == plain, f"a row has {plain} targets, and {alone} when it is augmented")
        hold(beside == 2 * plain, f"a row and the same augmented have {beside} targets, not {2 * plain}")


def _augmented(
    objective: Objective, item: Features, rows: Sequence[Features], processor: object, seed: int
) -> Features:
    """An item augmented by a new generator, which also draws from ``rows``."""
    rng = np.random.default_rng(seed)
    return objective.augment(item, lambda: rows[int(rng.integers(len(rows)))], processor, rng)
