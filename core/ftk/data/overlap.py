"""Rows that stand both in training and in a test set."""

from __future__ import annotations

from collections.abc import Iterator

from ftk.data.rows import Rows
from ftk.errors import UserError
from ftk.events import Events
from ftk.parts import Objective, Row


def report_overlap(rows: Rows, policy: str, events: Events) -> None:
    """Tell of rows that stand both in training and in a test set, as ``data.overlap`` asks.

    Raises:
        UserError: there are some, and the policy is ``error``.
    """
    if policy == "allow":
        return
    for place, shared, total in overlap(rows):
        told = f"{place}: {shared} of {total} rows stand in the training data of `{rows.task}` too"
        if policy == "error":
            raise UserError(told, 'take them out of one of the two, or write overlap = "warn" in [data]')
        events("warning", text=f"{told}; scores on them measure memory")


def overlap(rows: Rows) -> Iterator[tuple[str, int, int]]:
    """Each test set that shares rows with the training set: its place, how many of its rows, of how many."""
    trained, source = rows.roles["train"]
    taught = {_key(rows.objective, row) for row in trained}
    tested = [
        (dataset, f"{place}, its {role} split" if place == source else place)
        for role, (dataset, place) in rows.roles.items()
        if role != "train"
    ]
    for dataset, place in [*tested, *rows.probes.values()]:
        shared = sum(_key(rows.objective, row) in taught for row in dataset)
        if shared:
            yield place, shared, len(dataset)


def _key(objective: Objective, row: Row) -> int:
    return hash(tuple(" ".join(text.split()).casefold() for text in objective.texts(row)))
