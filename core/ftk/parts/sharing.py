"""How evaluators divide test rows into batches and batches among processes, and add up what came out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

import torch

from ftk.errors import UserError

if TYPE_CHECKING:
    from ftk.parts.context import Context
    from ftk.parts.examples import Examples, Task

Piece = TypeVar("Piece")


def tested(task: Task) -> Examples:
    """The rows on which ``task`` is measured.

    Raises:
        UserError: it has none.
    """
    if task.test is None or len(task.test) == 0:
        raise UserError(
            f"task `{task.name}` has no test rows to measure",
            "give its data a `test` set, or leave the evaluator out",
        )
    return task.test


def batches_of_process(lengths: Sequence[int], batch_size: int, ctx: Context) -> Iterator[tuple[list[int], bool]]:
    """The batches of row indices that this process works on, rows of like length together, the longest first.

    The batches are the same whatever the number of processes. Each process gets as many as the others,
    because a model that is divided among them answers only where all call it together; where the batches do
    not come out even, some are handed out twice and the second time do not count. The longest come first so
    that too large a batch fails at once.

    Args:
        lengths: the length of each row, in positions.
        batch_size: rows per batch.
        ctx: says which process this is.

    Yields:
        the row indices of a batch, and whether its result counts.
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    rounds = -(-len(batches) // ctx.world_size)
    for turn in range(ctx.rank, rounds * ctx.world_size, ctx.world_size):
        ctx.check_interrupt()
        yield batches[turn % len(batches)], turn < len(batches)


def add_up(values: Sequence[float], ctx: Context) -> list[float]:
    """Each value summed over all processes, in float64."""
    if ctx.world_size == 1:
        return list(values)
    sums = torch.tensor(values, dtype=torch.float64, device=ctx.device)
    torch.distributed.all_reduce(sums)
    return [float(value) for value in sums]


def gathered(own: Sequence[Piece], ctx: Context) -> list[Piece]:
    """What every process has, one process after the other; each gets all. Tensors among it are on the CPU."""
    if ctx.world_size == 1:
        return list(own)
    found: list[Sequence[Piece]] = [()] * ctx.world_size
    torch.distributed.all_gather_object(found, list(own))
    return [piece for pieces in found for piece in pieces]
