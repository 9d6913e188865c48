"""The recipe's starting model, as it is handed to a data source that takes its rows from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ftk.parts.model import Head, Loaded


@dataclass(frozen=True, slots=True)
class StartingModel:
    """The recipe's starting model, read only where it is asked for.

    Attributes:
        identity: what the model and its processor depend on, as a hash; None where the model source does not know.
        load: the model with a head, in ``eval`` mode on the device of the run, and its processor; a copy of its own.
        progress: tells observers what goes on, how much of it is done and of how much; raises when a signal asked the
            run to stop. Call it often.
    """

    identity: Callable[[], str | None]
    load: Callable[[Head], Loaded]
    progress: Callable[[str, int, int], None]
