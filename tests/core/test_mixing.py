"""The mixer: order as a pure function of position, and shares of the final mix."""

from collections import Counter

import numpy as np
import pytest

from ftk.data.mixing import Mixer
from ftk.errors import UserError
from ftk.parts import Source
from tests.mixers import mixer_of


def rows(count: int, length: int = 3) -> list[dict[str, np.ndarray]]:
    return [{"input_ids": np.full(length, index, dtype=np.int32)} for index in range(count)]


def drawn(mixer: Mixer, start: int, stop: int) -> list[tuple[str, int]]:
    return [(source.name, int(item["input_ids"][0])) for source, item in mixer.draw(start, stop)]


def make(count: int = 50, shares: tuple[float, ...] = (), seed: int = 0, pool: int = 7) -> Mixer:
    sources = [Source(f"memory{index}", rows(pool), share, None) for index, share in enumerate(shares)]
    return mixer_of(rows(count), None, sources, seed)


def test_an_epoch_draws_every_row_once_in_a_fresh_order():
    mixer = make(50)
    first, second = drawn(mixer, 0, 50), drawn(mixer, 50, 100)
    assert sorted(index for _, index in first) == list(range(50))
    assert sorted(index for _, index in second) == list(range(50))
    assert first != second
    assert first != [("train", index) for index in range(50)]


@pytest.mark.parametrize("shares", [(), (0.1,), (0.5,), (0.2, 0.3), (0.01,)])
def test_any_cut_of_the_stream_gives_the_same_rows(shares):
    mixer = make(37, shares)
    whole = drawn(mixer, 0, 400)
    pieces, position = [], 0
    generator = np.random.default_rng(1)
    while position < 400:
        size = min(int(generator.integers(1, 60)), 400 - position)
        pieces += drawn(make(37, shares), position, position + size)
        position += size
    assert pieces == whole


@pytest.mark.parametrize(("count", "share"), [(1000, 0.1), (64, 0.25), (10, 0.1), (10, 0.03), (7, 0.9)])
def test_the_share_of_the_final_mix_is_right_to_one_percent_over_a_run(count, share):
    mixer = make(count, (share,))
    total = max(mixer.rows_in(10), 2000)
    counts = Counter(name for name, _ in drawn(mixer, 0, total))
    assert counts["memory0"] / total == pytest.approx(share, rel=0.01)


def test_own_rows_are_passed_exactly_once_an_epoch_beside_any_source():
    mixer = make(20, (0.3, 0.2))
    counts = Counter(index for name, index in drawn(mixer, 0, mixer.rows_in(3)) if name == "train")
    assert set(counts.values()) == {3}
    assert len(counts) == 20


def test_a_source_goes_through_all_its_rows_before_it_repeats_one():
    mixer = make(100, (0.5,), pool=9)
    memory = [index for name, index in drawn(mixer, 0, 200) if name == "memory0"]
    for start in range(0, len(memory) - 9, 9):
        assert sorted(memory[start : start + 9]) == list(range(9))


def test_the_order_depends_on_the_seed():
    assert drawn(make(seed=0), 0, 50) != drawn(make(seed=1), 0, 50)
    assert drawn(make(seed=1), 0, 50) == drawn(make(seed=1), 0, 50)


def test_fractions_of_an_epoch_count_rows():
    assert make(50).rows_in(1.5) == 75
    assert make(50, (0.5,)).rows_in(1) == 100


@pytest.mark.parametrize("shares", [(0.6, 0.4), (0.7, 0.7), (0.0,), (1.0,), (0.99999999999,)])
def test_shares_that_leave_no_room_are_refused(shares):
    with pytest.raises(UserError, match=r"shares.*memory0"):
        make(10, shares)


def test_no_rows_are_refused():
    with pytest.raises(UserError, match="no rows"):
        mixer_of([], None, [], 0)
    with pytest.raises(UserError, match=r"memory.*no rows"):
        mixer_of(rows(3), None, [Source("memory", [], 0.5, None)], 0)
