"""What an objective draws from a row anew: other each epoch, the same after a restart, fixed where it is measured."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from ftk.data.batches import Batches, passes
from ftk.parts import Source
from ftk.parts.varying import Varied
from ftk.recipe.training import Training
from ftk.running.loop import Progress
from ftk.testing import toy_examples
from tests.core.loops import build, losses, make_loop, rows
from tests.mixers import mixer_of

TEXTS = [{"text": f"text {number} {'of some length ' * (number % 4)}"} for number in range(12)]
CHOICES = [{"batch_size": 5}, {"batch_tokens": 90, "group_by_length": True}]


def noisy(**options: Any) -> Any:
    """`causal_lm`, each row of which carries a number drawn anew at every position."""

    class Noisy(type(build("objective", "causal_lm"))):
        def vary(self, item, processor, rng):
            assert processor is not None
            return {**item, "noise": rng.random(len(item["input_ids"]))}

        def join(self, pieces):
            return {**super().join(pieces), "noise": np.concatenate([piece["noise"] for piece in pieces])}

    return Noisy(build("objective", "causal_lm", **options).options)


def examples(**options: Any) -> Any:
    return toy_examples(TEXTS, noisy(**options))


def batches(seed: int = 0, pool: Any = None, **training: Any) -> Batches:
    found = examples()
    sources = [Source("memory", (pool or found).items, 0.3, found.objective)]
    return Batches(mixer_of(found.items, found.objective, sources, seed), Training(**training))


def told(drawn: Any) -> list[tuple[str, bytes, bytes]]:
    return [(source.name, item["input_ids"].tobytes(), item["noise"].tobytes()) for source, item in drawn]


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_each_epoch_varies_anew_and_a_step_alone_is_the_same(choice: dict[str, Any]) -> None:
    whole = [told(batches(**choice).rows(step)) for step in range(batches(**choice).count(4))]
    noises = Counter(noise for step in whole for _, _, noise in step)
    assert set(noises.values()) == {1}, "no draw comes twice, from whichever source"
    assert len({ids for step in whole for _, ids, _ in step}) == len(TEXTS)
    for step in (len(whole) - 1, 0, len(whole) // 2):
        assert told(batches(**choice).rows(step)) == whole[step]
    other = {noise for _, _, noise in told(batches(seed=1, **choice).rows(0))}
    assert not other & set(noises), "another seed is another draw"


def test_neither_the_cut_nor_the_number_of_processes_matters() -> None:
    drawn = batches(batch_size=8).rows(2)
    expected = Counter(item["noise"].tobytes() for _, item in drawn)
    for size, world in ((8, 1), (3, 1), (2, 2), (1, 4)):
        cut = [
            item["noise"].tobytes()
            for rank in range(world)
            for _, items, counts in passes(drawn, size, None, rank, world)
            for item in items
            if counts
        ]
        assert Counter(cut) == expected, f"in passes of {size} on {world} processes"


def test_rows_that_a_mitigation_has_read_stay_as_they_are() -> None:
    kept = list(examples().items)
    found = examples()
    mixer = mixer_of(found.items, found.objective, [Source("memory", kept, 0.5, found.objective)], 0)
    read = {item["noise"].tobytes() for item in kept}
    mixed = [(source.name, item["noise"].tobytes() in read) for source, item in mixer.draw(0, 48)]
    assert {name: {known for each, known in mixed if each == name} for name in ("train", "memory")} == {
        "train": {False}, "memory": {True},
    }  # fmt: skip


def test_what_is_measured_varies_by_content_alone() -> None:
    def known(items: Any) -> dict[bytes, bytes]:
        return {item["input_ids"].tobytes(): item["noise"].tobytes() for item in items}

    whole = known(examples().items)
    assert len(set(whole.values())) == len(TEXTS)
    assert known(examples().items) == whole
    assert known(examples().pieces) == whole
    some = examples().subset([7, 2, 5])
    assert known(some.items).items() <= whole.items()
    assert "noise" not in some.encoded[0], "what is encoded, and cached, is not varied"


@pytest.mark.parametrize("joined", [False, True])
def test_rows_are_varied_before_they_are_joined(joined: bool) -> None:
    options = {"max_length": 40, "packing": joined}
    found = examples(**options)
    assert isinstance(found.items, Varied)
    assert (len(found.items) < len(found.pieces)) is joined
    pieces = Counter(item["noise"].tobytes() for item in found.pieces)
    for item in found.items:
        starts = np.flatnonzero(item["position_ids"] == 0) if joined else np.array([0])
        for noise in np.split(item["noise"], starts[1:]):
            assert pieces[noise.tobytes()] > 0
    assert sum(len(item["noise"]) for item in found.items) == found.items.lengths.sum()


def test_a_run_is_the_same_in_micro_batches_of_any_size() -> None:
    class Masked(type(build("objective", "causal_lm"))):
        """Leaves out half of the targets, others each time; how many there are is known only then."""

        def vary(self, item, processor, rng):
            labels = np.where(rng.random(len(item["labels"])) < 0.5, -100, item["labels"])
            labels[-1] = item["labels"][-1]
            return {**item, "labels": labels}

    told = []
    for size in (8, 3):
        events: list[Any] = []
        loop = make_loop(events=events, micro_batch_size=size, steps=6)
        objective = Masked(loop.ctx.objective.options)
        items = toy_examples(rows(48), objective).items
        object.__setattr__(loop, "batches", Batches(mixer_of(items, objective, [], 0), loop.options))
        loop.train(Progress())
        told.append(losses(events))
    np.testing.assert_allclose(told[0], told[1], rtol=1e-5)


def mixing(**options: Any) -> Any:
    """`causal_lm`, each row of which carries, in training, the text of another one of its source and noise."""

    class Mixing(type(build("objective", "causal_lm"))):
        def augment(self, item, draw, processor, rng):
            assert processor is not None
            return {**item, "other": draw()["input_ids"], "noise": rng.random(8)}

        def join(self, pieces):
            more = [name for name in ("other", "noise") if name in pieces[0]]
            return {**super().join(pieces), **{name: pieces[0][name] for name in more}}

    return Mixing(build("objective", "causal_lm", **options).options)


def test_training_augments_and_draws_from_the_source_of_a_row() -> None:
    parts = {"train": TEXTS[:7], "memory": TEXTS[7:]}

    def drawn(seed: int, start: int, stop: int) -> Any:
        own, old = (toy_examples(texts, mixing()) for texts in parts.values())
        mixer = mixer_of(own.items, own.objective, [Source("memory", old.items, 0.4, old.objective)], seed)
        return mixer.draw(start, stop)

    whole = drawn(0, 0, 150)
    for name, texts in parts.items():
        partners = {item["other"].tobytes() for source, item in whole if source.name == name}
        assert partners == {item["input_ids"].tobytes() for item in toy_examples(texts, mixing()).encoded}
    noises = Counter(item["noise"].tobytes() for _, item in whole)
    assert set(noises.values()) == {1}, "each draw is augmented anew"
    assert not set(noises) & {item["noise"].tobytes() for _, item in drawn(1, 0, 150)}
    for (_, one), (_, other) in zip(drawn(0, 120, 130), whole[120:130], strict=True):
        assert all(np.array_equal(one[name], array) for name, array in other.items()), "the same after a restart"


@pytest.mark.parametrize("joined", [False, True])
def test_what_is_measured_is_not_augmented(joined: bool) -> None:
    options = {"max_length": 40, "packing": joined}
    found, plain = (
        toy_examples(TEXTS, made) for made in (mixing(**options), build("objective", "causal_lm", **options))
    )
    for items, expected in ((found.items, plain.items), (found.pieces, plain.pieces)):
        for item, same in zip(items, expected, strict=True):
            assert item.keys() == same.keys()
            assert all(np.array_equal(array, same[name]) for name, array in item.items())
    ((_, item),) = mixer_of(found.items, found.objective, [], 0).draw(3, 4)
    assert item["other"].tobytes() in {piece["input_ids"].tobytes() for piece in plain.pieces}, "rows as they are cut"


def test_an_objective_that_takes_rows_as_they_are_pays_nothing() -> None:
    found = toy_examples(TEXTS, build("objective", "causal_lm"))
    assert found.items is found.encoded
