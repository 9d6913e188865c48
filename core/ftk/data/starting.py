"""The starting model for data sources that take their rows from it."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from ftk.data.cache import key_of
from ftk.data.keys import part_key
from ftk.events import Events
from ftk.parts import Head, Loaded, ModelSource, StartingModel
from ftk.recipe.specs import PartSpec


def starting_model(
    source: ModelSource,
    spec: PartSpec,
    seed: int,
    device: torch.device,
    events: Events,
    check_interrupt: Callable[[], None],
) -> StartingModel:
    """What is handed to a data source that asks for the starting model.

    Args:
        source: gives it.
        spec: what the source was built from.
        seed: of weights that are drawn; the recipe's.
        device: where it shall be.
        events: told how far the work with it is.
        check_interrupt: raises when a signal asked the run to stop.
    """
    told = 0.0

    def identity() -> str | None:
        files = source.identity()
        return None if files is None else key_of(files, part_key(spec), seed)

    def load(head: Head) -> Loaded:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            loaded = source.load(head, lambda: iter(()))
        return Loaded(loaded.model.to(device).eval(), loaded.processor)

    def progress(text: str, done: int, total: int) -> None:
        nonlocal told
        check_interrupt()
        if (now := time.monotonic()) - told > 0.5 or done == total:
            events("phase", text=text, done=done, total=total)
            told = now

    return StartingModel(identity, load, progress)
