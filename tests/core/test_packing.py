"""Rows cut into windows and joined into blocks: an index that loses nothing, against brute force."""

from itertools import pairwise

import numpy as np
import pytest

from ftk.parts.packing import Packing, best_fit, packed, windows
from ftk.parts.views import Selected, digest_of, lengths_of


def rows(lengths):
    """Rows whose entries are all different."""
    ends = np.cumsum(lengths)
    return [
        {"x": np.arange(end - length, end), "y": -np.arange(length)} for length, end in zip(lengths, ends, strict=True)
    ]


def joined(pieces):
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def greedy(lengths, capacity):
    """Best-fit decreasing, searching all blocks for each piece: the space that each block has left."""
    spaces = []
    for length in sorted(lengths, reverse=True):
        fits = [index for index, space in enumerate(spaces) if space >= length]
        if not fits:
            fits, _ = [len(spaces)], spaces.append(capacity)
        spaces[min(fits, key=lambda index: spaces[index])] -= length
    return sorted(spaces)


@pytest.mark.parametrize("longest", [4, 13, 33])
def test_best_fit_matches_a_search_over_all_blocks(longest):
    random = np.random.default_rng(longest)
    for count in (1, 2, 7, 60, 200):
        lengths = random.integers(1, longest, count)
        blocks = best_fit(lengths, 32)
        left = 32 - np.bincount(blocks, weights=lengths)
        assert sorted(left) == greedy(lengths.tolist(), 32)
        firsts = [int(np.flatnonzero(blocks == block)[0]) for block in range(blocks.max() + 1)]
        assert firsts == sorted(firsts), "blocks come in the order of their first rows"


@pytest.mark.parametrize("repeated", [0, 1, 3])
def test_windows_cover_each_row_and_repeat_what_they_should(repeated):
    lengths = np.arange(1, 40)
    row, start, stop = windows(lengths, Packing(8, repeated=repeated))
    for index, length in enumerate(lengths):
        pieces = list(zip(start[row == index], stop[row == index], strict=True))
        assert pieces[0][0] == 0
        assert pieces[-1][1] == length
        assert all(last - first <= 8 for first, last in pieces)
        assert all(last - first > repeated for first, last in pieces[1:]), "a window brings something new"
        assert all(following[0] == before[1] - repeated for before, following in pairwise(pieces))


def test_packed_items_hold_every_position_once_and_know_their_lengths():
    whole = rows([5, 1, 30, 2, 2, 9, 8])
    items = packed(whole, Packing(10, joined=True), joined)
    assert lengths_of(items).tolist() == [len(item["x"]) for item in items]
    assert sorted(int(value) for item in items for value in item["x"]) == list(range(57))
    assert len(items) == 6, "57 positions in blocks of 10"
    np.testing.assert_array_equal(items[-1]["x"], items[len(items) - 1]["x"])
    assert [len(item["y"]) for item in items[1:3]] == lengths_of(items)[1:3].tolist()
    with pytest.raises(IndexError):
        items[6]


def test_nothing_to_cut_and_nothing_to_join_leaves_the_rows_themselves():
    whole = rows([3, 8])
    assert packed(whole, Packing(8), joined) is whole
    assert len(packed(whole, Packing(7), joined)) == 3


def test_a_choice_of_rows_is_a_view_of_them():
    whole = rows([3, 8, 1])
    chosen = Selected(whole, np.array([2, 0]))
    assert [item["x"].tolist() for item in chosen] == [[11], [0, 1, 2]]
    assert lengths_of(chosen).tolist() == [1, 3]


def test_digests_tell_contents_choices_and_packings_apart():
    whole, other = rows([3, 8, 1]), rows([3, 8, 1])
    assert digest_of(whole) == digest_of(other)
    other[1]["y"][4] = 7
    told = [
        digest_of(items)
        for items in (
            whole, other, Selected(whole, np.array([0, 1])), Selected(whole, np.array([1, 0])),
            packed(whole, Packing(9, joined=True), joined), packed(whole, Packing(10, joined=True), joined),
        )
    ]  # fmt: skip
    assert len(set(told)) == 6
