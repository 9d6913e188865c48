"""Work of the `datasets` library without its progress bars."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars


@contextmanager
def quiet() -> Iterator[None]:
    """Without the progress bars of `datasets`, which would cut through ftk's own."""
    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
