"""Mixup and CutMix: pixels and loss by their formulas, how shares are drawn, and steps that are cut in any way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from ftk.parts import Features
from ftk.testing import toy_context, toy_examples
from ftk_plugins.objectives.image_classification.image_classification import ImageClassification
from ftk_plugins.objectives.image_classification.options import ImageClassificationOptions
from tests.mixers import mixer_of
from tests.plugins.objectives.pictures import ROWS, processor, vit

LABELS = ("bar", "cup", "dot")


def objective(**options: Any) -> ImageClassification:
    return ImageClassification(ImageClassificationOptions(labels=LABELS, **options))


def rows(height: int = 8, width: int = 8) -> tuple[Features, Features]:
    """A row of ones with label 0, and one of zeros with label 2: what is left of the first is the mean pixel."""
    return tuple(
        {"pixel_values": np.full((3, height, width), value, np.float32), "labels": np.array([label], np.int32)}
        for value, label in ((1, 0), (0, 2))
    )  # type: ignore[return-value]


def augmented(seed: int, item: Features, other: Features, **options: Any) -> Features:
    return objective(**options).augment(item, lambda: other, None, np.random.default_rng(seed))


def test_mixup_is_the_mean_by_a_share_from_the_beta_distribution() -> None:
    item, other = rows()
    shares = []
    for seed in range(300):
        found = augmented(seed, item, other, mixup=0.3)
        (share,) = found["shares"]
        np.testing.assert_allclose(found["pixel_values"], share, rtol=1e-6)
        assert (found["labels"], found["others"]) == (0, 2)
        shares.append(share)
    assert kstest(shares, "beta", args=(0.3, 0.3)).pvalue > 0.01
    assert kstest(shares, "beta", args=(1.0, 1.0)).pvalue < 1e-6


def test_cutmix_puts_in_one_rectangle_and_counts_it() -> None:
    item, other = rows(6, 10)
    shares = []
    for seed in range(300):
        found = augmented(seed, item, other, cutmix=1.0)
        cut = found["pixel_values"][0] == 0
        assert (found["pixel_values"] == found["pixel_values"][:1]).all()
        at = np.argwhere(cut)
        if len(at):
            (top, left), (bottom, right) = at.min(0), at.max(0) + 1
            assert cut[top:bottom, left:right].all(), "what is cut is a rectangle"
        assert found["shares"] == pytest.approx(1 - cut.mean(), abs=1e-6)
        shares.append(float(found["shares"][0]))
    assert min(shares) < 0.2
    assert max(shares) > 0.9
    corners = {
        tuple(augmented(seed, item, other, cutmix=1.0)["pixel_values"][0, [0, -1], [0, -1]]) for seed in range(99)
    }
    assert {(0.0, 1.0), (1.0, 0.0)} <= corners, "it lies anywhere"


def test_of_both_a_coin_chooses_and_of_none_the_row_stays() -> None:
    item, other = rows()
    plain = augmented(0, item, other)
    assert plain.keys() == item.keys()
    assert all(plain[name] is item[name] for name in item)
    found = [augmented(seed, item, other, mixup=1.0, cutmix=1.0) for seed in range(200)]
    cut = [set(np.unique(each["pixel_values"])) <= {0.0, 1.0} for each in found]
    assert 70 < sum(cut) < 130


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_cross_entropy_with_soft_targets(smoothing: float) -> None:
    made = objective(mixup=1.0)
    encoded = made.encode_batch(ROWS, processor())
    mixes = [
        made.augment(item, lambda: encoded[4], processor(), np.random.default_rng(seed))
        for seed, item in enumerate(encoded[:3])
    ]
    batch = made.collate([*mixes, encoded[3]])  # a row that was not mixed goes with the others
    assert batch.count == 4
    model = vit(hidden_dropout_prob=0.0).train()
    loss = made.loss(model, batch, toy_context(model, made, label_smoothing=smoothing))
    targets = torch.zeros(4, 3)
    for row, item in enumerate([*mixes, encoded[3]]):
        share = float(item.get("shares", [1.0])[0])
        targets[row, int(item["labels"][0])] += share
        targets[row, int(item.get("others", item["labels"])[0])] += 1 - share
    targets = (1 - smoothing) * targets + smoothing / 3
    logits = model(pixel_values=batch.inputs["pixel_values"]).logits
    expected = -(targets * logits.log_softmax(-1)).sum()
    torch.testing.assert_close(loss.total, expected, rtol=1e-5, atol=1e-6)
    weights = list(model.parameters())
    for one, other in zip(
        torch.autograd.grad(loss.total, weights), torch.autograd.grad(expected, weights), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_a_step_is_the_same_however_it_is_cut() -> None:
    made = objective(mixup=0.4, cutmix=1.0)
    items = toy_examples(ROWS, made, processor()).items
    drawn = [item for _, item in mixer_of(items, made, [], 3).draw(2, 8)]
    model = vit(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0).train()
    ctx = toy_context(model, made)

    def gradients(*cuts: slice) -> list[torch.Tensor]:
        model.zero_grad()
        for cut in cuts:
            torch.autograd.backward(made.loss(model, made.collate(drawn[cut]), ctx).total / len(drawn))
        return [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]

    whole = gradients(slice(0, 6))
    for cuts in ((slice(0, 2), slice(2, 6)), tuple(slice(at, at + 1) for at in range(6))):
        again = [item for _, item in mixer_of(items, made, [], 3).draw(2, 8)]
        assert all(np.array_equal(a["shares"], b["shares"]) for a, b in zip(drawn, again, strict=True))
        for one, other in zip(gradients(*cuts), whole, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_what_is_measured_is_not_mixed() -> None:
    made, encode = objective(mixup=0.4), objective().encode_batch
    for found, plain in zip(toy_examples(ROWS, made, processor()).items, encode(ROWS, processor()), strict=True):
        assert found.keys() == plain.keys()
        np.testing.assert_array_equal(found["pixel_values"], plain["pixel_values"])
