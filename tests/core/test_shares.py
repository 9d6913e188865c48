"""Shares that change as a stage goes on: what is drawn by when, at any cut, and after a restart."""

from __future__ import annotations

import numpy as np
import pytest

from ftk.data.mixing import Mixer
from ftk.errors import UserError
from ftk.parts import Course, Source
from ftk.recipe.training import Training
from tests.core.loops import build

OBJECTIVE = build("objective", "causal_lm")
FIRST = [("memory0", 4), ("train", 19), ("train", 45), ("train", 21), ("memory0", 2), ("train", 37)]


def rows(count: int) -> list[dict[str, np.ndarray]]:
    return [{"input_ids": np.full(3, index, dtype=np.int32)} for index in range(count)]


def make(count: int, shares: list[float | Course], **training: object) -> Mixer:
    sources = [Source(f"memory{index}", rows(7), share, OBJECTIVE) for index, share in enumerate(shares)]
    own = [Source("train", rows(count), 1.0, OBJECTIVE)]
    return Mixer(own, count, sources, 0, Training(**training))  # type: ignore[arg-type]


def names(mixer: Mixer, start: int, stop: int) -> np.ndarray:
    return np.array([source.name for source, _ in mixer.draw(start, stop)])


@pytest.mark.parametrize("training", [{"epochs": 2.0}, {"steps": 250, "batch_size": 16}, {"epochs": 0.5}])
def test_the_share_follows_its_course(training: dict[str, object]) -> None:
    course = Course(0.5, 0.1, over=0.5)
    mixer = make(2000, [course], **training)
    total = 250 * 16 if "steps" in training else mixer.rows_in(float(str(training["epochs"])))
    memory = names(mixer, 0, total) == "memory0"
    # Done is counted in own rows; of each tenth of them, how many others came with them.
    own = np.cumsum(~memory)
    for tenth in range(10):
        there = (own > own[-1] * tenth / 10) & (own <= own[-1] * (tenth + 1) / 10)
        expected = course.at((tenth + 0.5) / 10)
        assert memory[there].mean() == pytest.approx(expected, abs=0.03), tenth
    if "steps" in training:  # and the stage, as it is counted in rows, is as long as its steps
        assert mixer.rows_in(own[-1] / 2000) == pytest.approx(total, rel=0.01)


def test_any_cut_of_the_stream_gives_the_same_rows_and_an_epoch_all_of_the_stages_own() -> None:
    def drawn(mixer: Mixer, start: int, stop: int) -> list[tuple[str, int]]:
        return [(source.name, int(item["input_ids"][0])) for source, item in mixer.draw(start, stop)]

    shares: list[float | Course] = [Course(0.0, 0.6), 0.1, Course(0.2, 0.0, 0.3)]
    whole = drawn(make(37, shares, epochs=3.0), 0, 400)
    pieces: list[tuple[str, int]] = []
    generator = np.random.default_rng(1)
    while len(pieces) < 400:
        size = min(int(generator.integers(1, 60)), 400 - len(pieces))
        pieces += drawn(make(37, shares, epochs=3.0), len(pieces), len(pieces) + size)
    assert pieces == whole
    mixer = make(37, shares, epochs=3.0)
    for epoch in range(5):  # two of them beyond the stage's end
        there = drawn(mixer, mixer.epoch_start(epoch), mixer.epoch_start(epoch + 1))
        assert sorted(row for name, row in there if name == "train") == list(range(37))
    late = names(mixer, mixer.epoch_start(3), mixer.epoch_start(5))
    assert (late == "memory0").mean() == pytest.approx(0.6, abs=0.01)
    assert not (late == "memory2").any()


def test_constant_shares_are_drawn_as_ever() -> None:
    """In the order in which they were before shares could change."""
    mixer = make(50, [0.3, 0.05], epochs=2.0)
    order = [(source.name, int(item["input_ids"][0])) for source, item in mixer.draw(0, 150)]
    assert order[:6] == FIRST
    assert [name for name, _ in order].count("memory0") == pytest.approx(45, abs=6)


def test_shares_that_leave_no_room_at_some_time_are_refused() -> None:
    make(10, [Course(0.1, 0.5), Course(0.8, 0.4)])
    with pytest.raises(UserError, match=r"at most 0.99: memory0 0.9, memory1 0.2"):
        make(10, [Course(0.1, 0.9, 0.5), 0.2])
    with pytest.raises(UserError, match="above 0"):
        make(10, [Course(0.0, 0.0)])


def test_a_course_over_steps_of_so_many_tokens_is_refused() -> None:
    with pytest.raises(UserError, match=r"how long the stage is.*") as caught:
        make(10, [Course(0.1, 0.5)], steps=20, batch_tokens=64)
    assert "training.epochs" in caught.value.hint
    make(10, [0.1], steps=20, batch_tokens=64)


def test_the_fingerprint_knows_the_course() -> None:
    prints = [make(10, [Course(0.1, end)]).fingerprint() for end in (0.5, 0.5, 0.4)]
    assert prints[0] == prints[1] != prints[2]
