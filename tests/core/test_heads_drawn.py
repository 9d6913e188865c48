"""Heads that a source gives: the first as drawn alone, the others each in an order of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ftk.events import Events
from ftk.parts import Head
from ftk.parts.heads import Heads
from ftk.processes.loading import Loading
from tests.core.loops import build

LABELS = [("0", "1"), ("2", "3"), ("4", "5", "6")]
ONE, TWO, THREE = (Head("image_classification", labels, "single_label_classification") for labels in LABELS)


def loaded(live: Head, *others: Head, seed: int | None = None) -> Heads:
    source = build("model", "mlp", image_size=4, hidden_size=64, layers=1, seed=seed)
    loading = Loading(source, 7, lambda: iter(()), Accelerator(), None, None, "fp32", Events([]))
    places: dict[Head, Path | None] = dict.fromkeys((live, *others))
    return loading.load(places, live)


def weight(heads: Heads, head: Head) -> Tensor:
    classifier: nn.Linear = heads.models[head].classifier
    return classifier.weight.detach()


@pytest.mark.parametrize("seed", [None, 3], ids=["the recipe's seed", "a seed of the model's own"])
def test_heads_begin_apart_from_each_other(seed: int | None) -> None:
    heads = loaded(ONE, TWO, THREE, seed=seed)
    alone = loaded(ONE, seed=seed)
    assert torch.equal(weight(heads, ONE), weight(alone, ONE)), "a run of one head is what it was"
    rows = [weight(heads, head)[:2].flatten() for head in (ONE, TWO, THREE)]
    alike = torch.corrcoef(torch.stack(rows))
    assert alike.fill_diagonal_(0).abs().max() < 0.35  # 4 standard errors of 128 independent pairs
    assert torch.equal(weight(heads, TWO).flatten().sort().values, weight(alone, ONE).flatten().sort().values)
    assert heads.models[ONE].mlp is heads.models[TWO].mlp


def test_a_head_is_drawn_alike_whenever_it_comes() -> None:
    """A run that goes on, or has more heads, gives each the weights that it had."""
    assert torch.equal(weight(loaded(ONE, TWO, THREE), TWO), weight(loaded(ONE, TWO), TWO))
    assert torch.equal(weight(loaded(ONE, THREE, TWO), TWO), weight(loaded(ONE, TWO, THREE), TWO))
