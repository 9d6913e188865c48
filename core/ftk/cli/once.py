"""Of several processes of a run that end for one reason, one tells it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from ftk.errors import UserError

PATIENCE = 5.0
"""Seconds that a process waits to hear whether another has ended for the same reason."""


def is_first() -> bool:
    """Whether this is the only process of a run or the first of several; before they have met, by the launcher."""
    meeting = _meeting()
    return os.environ.get("RANK", "0") == "0" if meeting is None else meeting[1] == 0


def tell_once(reason: str, tell: Callable[[], None], error: BaseException) -> None:
    """Call ``tell``, unless the run's first process tells the same reason.

    A reason that the first process does not have is told by each that has it. Before the processes have met,
    wrong input is told by the first on each machine: all have read the same.
    """
    meeting = _meeting()
    if meeting is None:
        if os.environ.get("LOCAL_RANK", "0") == "0" or not isinstance(error, UserError):
            tell()
        return
    store, rank, world_size = meeting
    if rank == 0:
        tell()
        _say(store, rank, reason)
        _all_said(store, range(1, world_size))  # it is in this process that the others look up what was said
        return
    told = _all_said(store, [0]) and store.get("0").decode() == reason
    if not told:
        tell()
    _say(store, rank, reason)


def _meeting() -> tuple[Any, int, int] | None:
    """Where the processes of this run leave messages, which of them this is, and how many they are."""
    torch = sys.modules.get("torch")
    distributed = getattr(torch, "distributed", None)
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    if distributed.get_world_size() == 1:
        return None
    store = distributed.distributed_c10d._get_default_store()
    return distributed.PrefixStore("ftk/ends", store), distributed.get_rank(), distributed.get_world_size()


def _say(store: Any, rank: int, reason: str) -> None:
    try:
        store.set(str(rank), reason)
    except RuntimeError:
        return  # the process that kept the messages is gone


def _all_said(store: Any, ranks: Sequence[int]) -> bool:
    """Whether these processes have said why they end, or do so before long."""
    until = time.monotonic() + PATIENCE
    try:
        for rank in ranks:
            store.wait([str(rank)], timedelta(seconds=max(0.01, until - time.monotonic())))
    except RuntimeError:
        return False
    return True
