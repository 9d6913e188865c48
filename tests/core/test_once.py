"""Several processes that end: one tells what all have, and each what it alone has."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch

from ftk.cli import once
from ftk.errors import RunFailed, UserError


@pytest.mark.parametrize(
    ("reasons", "tellers"),
    [
        (["same", "same", "same"], [0]),
        (["same", "same", "its own"], [0, 2]),
        ([None, "its own", None], [1]),
        (["first's own", None, None], [0]),
    ],
)
def test_who_tells(reasons: list[str | None], tellers: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads stand for processes; one without a reason has not ended."""
    monkeypatch.setattr(once, "PATIENCE", 0.3)
    store, told = torch.distributed.HashStore(), []
    store.set_timeout(timedelta(seconds=1))
    process = threading.local()
    monkeypatch.setattr(once, "_meeting", lambda: (store, process.rank, 3))

    def end(rank: int, reason: str) -> None:
        process.rank = rank
        once.tell_once(reason, lambda: told.append(rank), RunFailed(reason))

    with ThreadPoolExecutor(3) as pool:
        for rank, reason in enumerate(reasons):
            if reason is not None:
                pool.submit(end, rank, reason)
    assert sorted(told) == tellers


def test_before_they_have_met_wrong_input_is_told_once_on_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    for local_rank in ("0", "1"):
        monkeypatch.setenv("LOCAL_RANK", local_rank)
        for error in (UserError("input"), RunFailed("trouble")):
            once.tell_once(str(error), lambda text=f"{error} {local_rank}": told.append(text), error)
    assert told == ["input 0", "trouble 0", "trouble 1"]
