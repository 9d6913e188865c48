"""Every adaptation through a whole run: interrupted and resumed it ends in the same bits, and what it leaves loads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.system.one_stage import run, stopped_at, weights

CHOICES = {
    "head": '{ use = "head", also = ["model.norm.weight", "*.mlp.down_proj.*"] }',
    "partial": '{ use = "partial", blocks = 1 }',
    "layerwise_lr": '{ use = "layerwise_lr", decay = 0.5 }',
    "progressive": '{ use = "progressive", thawed_by = 0.9 }',
}


@pytest.mark.parametrize("name", CHOICES)
def test_stopped_and_resumed_it_ends_in_the_same_bits(name: str, here: Path) -> None:
    choice = f"adaptation={CHOICES[name]}"
    whole = run(here, choice, output="whole")
    stopped_at(here, 5, choice, output="cut")
    resumed = run(here, choice, output="cut")
    expected, found = weights(whole), weights(resumed)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], weight) for key, weight in expected.items())
    report = json.loads((whole.folder / "report.json").read_text(encoding="utf-8"))
    trained, total = (report["stages"][0][f"{key}_parameters"] for key in ("trainable", "total"))
    assert (trained == total) == (name in ("layerwise_lr", "progressive"))
