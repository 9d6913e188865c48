"""Work over many rows, piece by piece in their order, in several processes where that pays."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from ftk.errors import RunFailed
from ftk.parts import Row

if TYPE_CHECKING:
    from datasets import Dataset

Result = TypeVar("Result")
Work = Callable[[Sequence[Row], int], Result]
"""Takes some rows and the number of the first, from 0."""

PIECE_ROWS, PIECE_BYTES = 1000, 4 * 2**20
"""A piece has at most so many rows, and about so many bytes."""

PAYS = 2.0
"""Seconds of work that must be left for workers to be started; that takes a few tenths of one."""


def in_pieces(rows: Dataset, work: Work[Result], pause: Callable[[], None]) -> Iterator[tuple[int, Result]]:
    """Call ``work`` on every piece of ``rows``; the results in the rows' order, each with the rows done so far.

    The first pieces are done here, and tell how long the rest will take. Workers are forked: what they need is
    there without a copy, and what they raise comes in the rows' order.

    Args:
        rows: the rows.
        work: must not depend on which process it runs in; its results are pickled.
        pause: called between pieces and while waiting for one; may raise to give up.

    Raises:
        RunFailed: a worker was killed.
    """
    size = piece_size(rows)
    starts = range(0, len(rows), size)
    workers = worker_count()
    begun = time.perf_counter()
    for done, start in enumerate(starts):
        seconds = time.perf_counter() - begun
        left = len(starts) - done
        if workers > 1 and done and seconds * left / done > PAYS:
            yield from _in_workers(rows, work, starts[done:], min(workers, left), pause)
            return
        pause()
        yield min(start + size, len(rows)), work(rows_of(rows, start, start + size), start)


def piece_size(rows: Dataset) -> int:
    """How many rows make a piece."""
    average = rows.data.nbytes / max(rows.data.num_rows, 1)
    return max(1, min(PIECE_ROWS, int(PIECE_BYTES / max(average, 1))))


def rows_of(rows: Dataset, start: int, stop: int) -> list[Row]:
    """Some rows, read at once."""
    columns: dict[str, Any] = rows[start:stop]
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def worker_count() -> int:
    """A worker for each core that this process may use; 1 where processes cannot be forked safely."""
    if sys.platform != "linux" or multiprocessing.current_process().daemon:
        return 1
    return len(os.sched_getaffinity(0))


def _in_workers(
    rows: Dataset, work: Work[Result], starts: range, workers: int, pause: Callable[[], None]
) -> Iterator[tuple[int, Result]]:
    waiting: deque[Future[Result]] = deque()
    with _tokenizers_in_one_thread():
        pool = ProcessPoolExecutor(
            workers, multiprocessing.get_context("fork"), _start_worker, (rows, work, os.getpid())
        )
        try:
            submitted = iter(starts)
            for start in starts:
                while len(waiting) < 2 * workers and (coming := next(submitted, None)) is not None:
                    waiting.append(pool.submit(_do_piece, coming, starts.step))
                while not wait([waiting[0]], timeout=0.1).done:
                    pause()
                pause()
                yield min(start + starts.step, len(rows)), waiting.popleft().result()
        except BrokenProcessPool as error:
            raise RunFailed(
                "a process that reads rows was killed\n  most often memory was short; close other programs"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


_task: tuple[Any, Work[Any]]
"""In a worker: the rows and the work."""


def _start_worker(rows: Any, work: Work[Any], parent: int) -> None:
    global _task
    _task = rows, work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that waits for the results decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """A worker whose parent was killed would wait for ever."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _do_piece(start: int, size: int) -> Any:
    rows, work = _task
    return work(rows_of(rows, start, start + size), start)


@contextmanager
def _tokenizers_in_one_thread() -> Iterator[None]:
    """A tokenizer that has used threads before the fork would print a warning in each worker."""
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ[name] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
