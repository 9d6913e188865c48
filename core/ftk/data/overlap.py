"""Rows that stand both in training and in a test set."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ftk.data.encoding import Encoder
from ftk.data.rows import Rows
from ftk.errors import UserError
from ftk.events import Events


def report_overlap(rows: Rows, policy: str, encoder: Encoder, events: Events) -> None:
    """Tell of rows that stand both in training and in a test set, as ``data.overlap`` asks.

    Raises:
        UserError: there are some, and the policy is ``error``.
    """
    if policy == "allow":
        return
    for place, shared, total in overlap(rows, encoder):
        told = f"{place}: {shared} of {total} rows stand in the training data of `{rows.task}` too"
        if policy == "error":
            raise UserError(told, 'take them out of one of the two, or write overlap = "warn" in [data]')
        events("warning", text=f"{told}; scores on them measure memory")


def overlap(rows: Rows, encoder: Encoder) -> Iterator[tuple[str, int, int]]:
    """Each test set that shares rows with the training set: its place, how many of its rows, of how many.

    Rows are the same if their texts are, but for capitals and white space; rows without texts, if all they hold is.
    They are compared by a hash of 64 bits, so that memory does not grow with the texts.
    """
    train = rows.roles["train"]
    tested = [
        (found, f"{found.place}, its {role} split" if found.place == train.place else found.place)
        for role, found in rows.roles.items()
        if role != "train"
    ]
    tested += [(found, found.place) for found in rows.probes.values()]
    if not tested:
        return
    taught = np.unique(encoder.texts(train, rows.spec, rows.objective))
    for found, place in tested:
        shared = np.isin(encoder.texts(found, rows.spec, rows.objective), taught)
        if shared.any():
            yield place, int(shared.sum()), len(shared)
