"""Each method of merging against its paper's formula, written once more in numpy on whole weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from ftk.parts import Depths, MergeMethod, MergePiece, MergeWeight
from ftk.plugin.discovery import load_registry
from ftk.plugin.variant import import_reference
from ftk_plugins.merges import trimming
from ftk_plugins.merges.trimming import trims_of

REGISTRY = load_registry(third_party=False)
SHAPE = (40, 9)


def method(name: str, **options: Any) -> MergeMethod:
    entry = REGISTRY.find("merge", name)
    made = import_reference(entry.variant.build)(entry.options_class()(**options))
    assert isinstance(made, MergeMethod)
    return made


def drawn(count: int, shape: tuple[int, ...] = SHAPE, seed: int = 0) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.standard_normal(shape).astype(np.float32) for _ in range(count)]


def weight_of(
    models: list[np.ndarray], shares: tuple[float, ...] = (), depth: float = 0.5, rows: int = 16,
    importances: list[np.ndarray] | None = None, seed: int = 0,
) -> MergeWeight:  # fmt: skip
    def pieces() -> Iterator[MergePiece]:
        for start in range(0, models[0].shape[0], rows):
            cut = [
                [torch.tensor(array[start : start + rows]) for array in group] for group in (models, importances or [])
            ]
            yield MergePiece(start, tuple(cut[0]), tuple(cut[1]))

    return MergeWeight("w", models[0].shape, depth, shares or (1.0,) * len(models), seed, pieces)


def merged(made: MergeMethod, weight: MergeWeight) -> np.ndarray:
    known = made.survey(weight)
    return torch.cat([made.combine(piece, weight, known) for piece in weight.pieces()]).numpy()


def close(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, atol=2e-6)


def trimmed(vector: np.ndarray, density: float) -> np.ndarray:
    """The largest entries, by sorting them all; of equals the first."""
    kept = np.argsort(-np.abs(vector).ravel(), kind="stable")[: max(1, int(density * vector.size))]
    mask = np.zeros(vector.size, dtype=bool)
    mask[kept] = True
    return np.where(mask.reshape(vector.shape), vector, 0).astype(np.float32)


def agreed(vectors: list[np.ndarray], shares: tuple[float, ...]) -> np.ndarray:
    """TIES' election and disjoint mean, entry by entry."""
    result = np.zeros(vectors[0].shape)
    for place in np.ndindex(*vectors[0].shape):
        weighed = [share * vector[place] for vector, share in zip(vectors, shares, strict=True)]
        sign = 1 if sum(weighed) >= 0 else -1
        those = [(value, share) for value, share in zip(weighed, shares, strict=True) if value * sign > 0]
        if those:
            result[place] = sum(value for value, _ in those) / sum(share for _, share in those)
    return result


def test_linear_is_the_weighted_average() -> None:
    a, b, c = drawn(3)
    close(merged(method("linear"), weight_of([a, b, c])), (a + b + c) / 3)
    close(merged(method("linear"), weight_of([a, b, c], (2.0, 1.0, 1.0))), (2 * a + b + c) / 4)
    close(merged(method("linear"), weight_of([a, b], (1.5, -0.5))), 1.5 * a - 0.5 * b)


def test_task_arithmetic_adds_and_negates() -> None:
    a, b = drawn(2)
    close(merged(method("task_arithmetic"), weight_of([a, b], (0.4, -1.0))), 0.4 * a - b)


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_slerp_turns_by_a_share_of_the_angle(t: float) -> None:
    a, b = drawn(2)
    angle = np.arccos((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))
    expected = np.sin((1 - t) * angle) / np.sin(angle) * a + np.sin(t * angle) / np.sin(angle) * b
    found = merged(method("slerp"), weight_of([a, b], (1 - t, t)))
    close(found, expected)
    turned = np.arccos((a * found).sum() / np.linalg.norm(a) / np.linalg.norm(found))
    assert turned == pytest.approx(_angle_at(a, b, expected), abs=1e-3)


def _angle_at(a: np.ndarray, b: np.ndarray, at: np.ndarray) -> float:
    return float(np.arccos(np.clip((a * at).sum() / np.linalg.norm(a) / np.linalg.norm(at), -1, 1)))


def test_slerp_of_weights_on_one_line_is_their_average() -> None:
    (a,) = drawn(1)
    for other in (2 * a, -a, np.zeros_like(a), a + 1e-4):
        expected = 0.7 * a + 0.3 * other
        if not other.any():  # a weight without direction is at a right angle to every other
            expected = np.sin(0.7 * np.pi / 2) * a
        close(merged(method("slerp"), weight_of([a, other], (0.7, 0.3))), expected)


@pytest.mark.parametrize("shares", [(1.0, 1.0, 1.0), (0.5, 0.2, 1.3)])
@pytest.mark.parametrize("density", [0.2, 0.61, 1.0])
def test_ties_trims_elects_and_averages(density: float, shares: tuple[float, ...]) -> None:
    vectors = drawn(3)
    expected = agreed([trimmed(vector, density) for vector in vectors], shares)
    close(merged(method("ties", density=density), weight_of(vectors, shares)), expected)
    close(merged(method("ties", density=density, scale=0.5), weight_of(vectors, shares)), expected / 2)


def test_of_equal_entries_the_first_are_kept() -> None:
    vector = np.full((6, 5), 0.5, dtype=np.float32)
    vector[1] = -0.5
    vector[3, 3] = 2.0
    expected = trimmed(vector, 0.4)
    assert np.count_nonzero(expected) == 12
    close(merged(method("ties", density=0.4), weight_of([vector], rows=2)), expected)


@pytest.mark.parametrize("kind", ["normal", "mostly zero", "few values", "rising"])
def test_a_threshold_found_by_a_sample_is_exact(kind: str) -> None:
    shape = (700, 100)
    assert shape[0] * shape[1] > 4 * trimming.SAMPLE
    (vector,) = drawn(1, shape)
    if kind == "mostly zero":
        vector[np.random.default_rng(1).random(shape) < 0.9] = 0
    elif kind == "few values":
        vector = np.round(vector)
    elif kind == "rising":
        vector = np.arange(vector.size, dtype=np.float32).reshape(shape)
    for density in (0.001, 0.05, 0.3, 0.999):
        weight = weight_of([vector], rows=128)
        [trim] = trims_of(weight, density)
        kept = []
        for piece in weight.pieces():
            trim.apply_(piece.models[0])
            kept.append(piece.models[0])
        close(torch.cat(kept).numpy(), trimmed(vector, density))


def test_a_bracket_that_misses_is_noticed() -> None:
    (vector,) = drawn(1)
    weight = weight_of([vector])
    assert trimming._selected(weight, [(5.0, 6.0)], 10) == [None]
    assert trimming._selected(weight, [(0.0, 1e-6)], 10) == [None]


@pytest.mark.parametrize("density", [0.1, 0.5])
def test_dare_keeps_a_share_and_the_expectation(density: float) -> None:
    vectors = [np.ones((400, 500), dtype=np.float32), -2 * np.ones((400, 500), dtype=np.float32)]
    alone = merged(method("dare", density=density), weight_of(vectors[:1], rows=64))
    assert set(np.unique(alone)) == {0.0, np.float32(1 / np.float32(density))}
    # of 200,000 draws the share has a standard deviation of at most 0.0012
    assert (alone > 0).mean() == pytest.approx(density, abs=0.006)
    both = merged(method("dare", density=density), weight_of(vectors, (0.5, 0.25), rows=64))
    assert both.mean() == pytest.approx(0.5 - 0.5, abs=0.03)
    second = {float(value) for value in np.unique(both)}
    assert second == {0.0, 0.5 / density, -0.5 / density}, "drawn apart for each model, else the two cancel"
    other = merged(method("dare", density=density), weight_of(vectors[:1], rows=64, seed=1))
    assert (other != alone).any()


def test_dare_with_ties_elects_among_what_is_left() -> None:
    vectors = drawn(2)
    masks = [
        merged(method("dare", density=0.5), weight_of([np.ones_like(v) * (n == k) for k, v in enumerate(vectors)])) / 2
        for n in range(2)
    ]
    left = [vector * mask / 0.5 for vector, mask in zip(vectors, masks, strict=True)]
    found = merged(method("dare", density=0.5, then="ties"), weight_of(vectors, (1.0, 0.5)))
    close(found, agreed(left, (1.0, 0.5)))


def test_lines_rises_with_the_depth() -> None:
    a, b = drawn(2)
    for depth, scale in ((0.0, 0.2), (0.5, 0.6), (1.0, 1.0)):
        found = merged(method("lines", first=0.2), weight_of([a, b], (1.0, 0.3), depth))
        close(found, scale * (a + 0.3 * b))


def test_fisher_weighs_every_entry() -> None:
    (a, b), (f, g) = drawn(2), [np.abs(array) for array in drawn(2, seed=1)]
    g[0] = 0
    f[1] = g[1] = 0
    expected = (0.4 * f * a + 0.6 * g * b) / np.maximum(0.4 * f + 0.6 * g, 1e-30)
    expected[0] = a[0]
    expected[1] = 0.4 * a[1] + 0.6 * b[1]
    found = merged(method("fisher", floor=1e-10), weight_of([a, b], (2.0, 3.0), importances=[f, g]))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    even = merged(method("fisher", floor=1e9), weight_of([a, b], importances=[f, g]))
    close(even, (a + b) / 2)


def test_ema_is_the_recursion() -> None:
    checkpoints = drawn(4)
    average = checkpoints[0]
    for checkpoint in checkpoints[1:]:
        average = 0.7 * average + 0.3 * checkpoint
    close(merged(method("ema", decay=0.7), weight_of(checkpoints)), average)


def test_depth_is_told_by_names() -> None:
    names = [
        "model.embed_tokens.weight", *(f"model.layers.{n}.mlp.up_proj.weight" for n in range(5)), "model.norm.weight",
        "lm_head.weight", "encoder.block.0.x", "encoder.block.2.layer.1.x", "decoder.block.0.layer.0.x",
    ]  # fmt: skip
    depths = Depths(names)
    assert [depths.of(name) for name in names[:8]] == [0, 0, 0.25, 0.5, 0.75, 1, 1, 1]
    assert [depths.of(name) for name in names[8:]] == [0, 1, 1], "each stack counts its own blocks"
    assert depths.of("transformer.h.3.attn.weight") == 1, "a stack that was not seen"
