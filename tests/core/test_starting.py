"""The starting model as data sources are handed it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ftk import Interrupted, RunEvent
from ftk.data.starting import starting_model
from ftk.events import Events
from ftk.parts import Head, Loaded, ModelSource
from ftk.plugin.discovery import load_registry
from ftk.recipe.levels import Reader


class Drawn(ModelSource):
    """Weights drawn from the global seed; it knows of itself what it is told."""

    def __init__(self, known: str | None) -> None:
        self.known = known

    def identity(self) -> str | None:
        return self.known

    def load(self, head: Head, corpus: Any) -> Loaded:
        assert not list(corpus())
        return Loaded(torch.nn.Linear(2, 2).train(), head)

    def load_folder(self, folder: Path, head: Head) -> Loaded:
        raise NotImplementedError


def starting(known: str | None = "files", path: str = "a", seed: int = 0, **more: Any) -> Any:
    spec = Reader(load_registry(third_party=False)).part("model", {"use": "pretrained", "path": path}, "model")
    assert spec is not None
    events = more.get("events", [])
    return starting_model(
        Drawn(known), spec, seed, torch.device("cpu"), Events([events.append]), more.get("check", lambda: None)
    )


def test_it_is_the_same_for_the_same_files_options_and_seed() -> None:
    known = {
        starting(*args).identity() for args in (("files",), ("files",), ("more",), ("files", "b"), ("files", "a", 1))
    }
    assert len(known) == 4
    assert starting(None).identity() is None


def test_it_is_loaded_to_be_asked_and_leaves_the_generator_alone() -> None:
    before = torch.get_rng_state()
    one, other = starting().load(Head("causal_lm")), starting().load(Head("causal_lm"))
    assert torch.equal(one.model.weight, other.model.weight)
    assert not torch.equal(one.model.weight, starting(seed=1).load(Head("causal_lm")).model.weight)
    assert not one.model.training
    assert one.processor == Head("causal_lm")
    assert torch.equal(torch.get_rng_state(), before)


def test_progress_is_told_now_and_then_and_can_be_interrupted() -> None:
    events: list[RunEvent] = []
    model = starting(events=events)
    for done in range(100):
        model.progress("writing", done, 100)
    model.progress("writing", 100, 100)
    assert [event.data["done"] for event in events][-1] == 100
    assert len(events) < 20

    def stop() -> None:
        raise Interrupted("stopped")

    with pytest.raises(Interrupted):
        starting(check=stop).progress("writing", 0, 1)
