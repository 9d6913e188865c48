"""Which micro-batches of a stage take the most memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ftk.data.batches import Batches, pass_tokens, passes
from ftk.parts import Features, Objective, Source, lengths_of
from ftk.running.stage import Stage

WALKED_ROWS = 50_000
"""So many rows are looked at in the order of training; of more, the longest of each source stand for the rest."""

Cut = tuple[Objective, Sequence[Features]]
"""A micro-batch before it is collated."""


def widest_cuts(stage: Stage, devices: int) -> list[Cut]:
    """The micro-batch of the stage that holds most, and once more if a device takes several in a step.

    Where rows are padded to the longest of them, that is the one with the most rows times its longest row.
    """
    batches = Batches(stage.mixer(), stage.spec.training)
    steps, walked, several = stage.steps(batches), 0, False
    found: list[Cut] = []
    for step in range(steps):
        cuts = list(cuts_of(stage, batches, step, devices))
        walked += sum(len(items) for _, items in cuts)
        several = several or len(cuts) > devices
        found = [max([*found, *cuts], key=width)]
        if step == 0 and batches.mixer.beside:
            found = [max([*found, *_longest(batches.mixer.beside, stage.ctx.micro_batch_size)], key=width)]
            several = True
        if walked >= WALKED_ROWS and step + 1 < steps:
            found = [max([*found, *_longest(batches.mixer.sources, stage.ctx.micro_batch_size)], key=width)]
            break
    return found * 2 if several else found


def cuts_of(stage: Stage, batches: Batches, step: int, devices: int) -> Iterator[Cut]:
    """The micro-batches of a step, of all devices."""
    options = stage.spec.training
    tokens = None if options.batch_tokens is None else pass_tokens(options, devices)
    rows = batches.rows(step)
    for rank in range(devices):
        for objective, items, counts in passes(rows, stage.ctx.micro_batch_size, tokens, rank, devices):
            if counts:
                yield objective, items


def width(cut: Cut) -> int:
    """Rows times the longest row."""
    return len(cut[1]) * longest(cut)


def longest(cut: Cut) -> int:
    """Positions of the longest row."""
    return int(lengths_of(cut[1]).max())


def _longest(sources: Sequence[Source], rows: int) -> Iterator[Cut]:
    """The longest rows of each source, as one micro-batch."""
    for source in sources:
        order = np.argsort(-lengths_of(source.items), kind="stable")[: min(rows, source.reference_rows or rows)]
        yield source.objective, [source.items[int(index)] for index in order]
