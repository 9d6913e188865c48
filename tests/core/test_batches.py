"""What a step holds, in rows or in tokens, grouped by length or not; and how one process cuts its share."""

from collections import Counter

import numpy as np
import pytest

from ftk.data.batches import Batches, pass_rows, passes, refuse_idle_grouping, shares
from ftk.errors import UserError
from ftk.parts import Packing, Source
from ftk.recipe.training import Training
from tests.mixers import mixer_of

LENGTHS = np.random.default_rng(0).lognormal(3, 0.8, 400).astype(int) + 1


def rows(lengths):
    return [{"input_ids": np.full(length, index, np.int32)} for index, length in enumerate(lengths)]


def make(share=0.0, seed=0, lengths=LENGTHS, **training):
    sources = [Source("memory", rows(np.arange(5, 30)), share, None)] if share else []
    return Batches(mixer_of(rows(lengths), None, sources, seed), Training(**training))


def held(batches, step):
    return [(source.name, int(item["input_ids"][0])) for source, item in batches.rows(step)]


def tokens(batches, step):
    return sum(len(item["input_ids"]) for _, item in batches.rows(step))


CHOICES = [
    {"batch_size": 8},
    {"batch_size": 8, "group_by_length": True},
    {"batch_tokens": 300},
    {"batch_tokens": 300, "group_by_length": True},
]


@pytest.mark.parametrize("share", [0.0, 0.3])
@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_the_rows_of_a_step_depend_on_the_seed_and_the_step_alone(choice, share):
    batches = make(share, **choice)
    steps = batches.count(3)
    forwards = [held(batches, step) for step in range(steps)]
    assert [held(make(share, **choice), step) for step in (steps - 1, 0, steps // 2)] == [
        forwards[-1], forwards[0], forwards[steps // 2]
    ]  # fmt: skip
    own = Counter(index for step in forwards for name, index in step if name == "train")
    assert len(own) == 400
    assert min(own.values()) == 3
    assert sum(own.values()) - 1200 < 8, "the stream goes on to the end of a step; an epoch that is divided does not"
    if share:
        assert sum(name == "memory" for step in forwards for name, _ in step) / sum(map(len, forwards)) == (
            pytest.approx(share, abs=0.01)
        )
    assert held(make(share, 1, **choice), 0) != forwards[0]


@pytest.mark.parametrize("grouped", [False, True])
def test_steps_in_tokens_are_the_fewest_and_about_equal(grouped):
    batches = make(batch_tokens=300, group_by_length=grouped)
    steps = batches.count(1)
    assert steps == -(-LENGTHS.sum() // 300)
    sizes = [tokens(batches, step) for step in range(steps)]
    target = LENGTHS.sum() / steps
    assert sum(sizes) == LENGTHS.sum()
    assert all(abs(size - target) < LENGTHS.max() for size in sizes)
    assert np.mean(sizes) <= 300
    assert batches.count(2.5) == 2 * steps + -(-steps // 2)


def test_grouped_steps_have_less_padding_and_come_in_random_order():
    def padding(batches):
        longest = [[len(item["input_ids"]) for _, item in batches.rows(step)] for step in range(50)]
        return sum(max(step) * len(step) for step in longest) / sum(map(sum, longest))

    plain, grouped = make(batch_size=8), make(batch_size=8, group_by_length=True)
    assert padding(plain) > 1.5
    assert padding(grouped) < 1.15
    means = [tokens(grouped, step) for step in range(50)]
    assert abs(np.corrcoef(np.arange(50), means)[0, 1]) < 0.4


def test_the_stream_of_plain_rows_goes_on_across_epochs():
    batches = make(lengths=LENGTHS[:10], batch_size=4)
    assert [len(batches.rows(step)) for step in range(5)] == [4] * 5
    assert batches.count(1) == 3
    grouped = make(lengths=LENGTHS[:10], batch_size=4, group_by_length=True)
    assert [len(grouped.rows(step)) for step in range(grouped.count(1))] in ([4, 3, 3], [3, 4, 3], [3, 3, 4])


def test_a_row_longer_than_the_budget_is_a_step_by_itself():
    ends = shares(np.array([5, 50, 5, 5]), 10)
    assert ends.tolist() == [2, 3, 4] or ends.tolist() == [2, 4]
    assert shares(np.array([5, 5, 5, 5]), 10).tolist() == [2, 4]
    assert shares(np.array([5, 5, 5]), 10).tolist() == [2, 3]
    assert shares(np.array([3]), 10).tolist() == [1]


def test_passes_hold_near_lengths_and_every_row_once():
    one, other = object(), object()
    drawn = [(Source("train", [], 0.5, one), row) for n in (5, 1, 9, 2) for row in rows([n, n])]
    drawn += [(Source("memory", [], 0.5, other), row) for row in rows([4, 4, 4])]
    cut = passes(drawn, 3)
    assert [len(found) for _, found, _ in cut] == [3, 3, 2, 3]
    assert [objective is one for objective, _, _ in cut] == [True, True, True, False]
    lengths = [len(item["input_ids"]) for _, found, _ in cut[:3] for item in found]
    assert lengths == sorted(lengths, reverse=True)
    assert all(counts for _, _, counts in cut)


def test_passes_in_tokens_count_padding():
    drawn = [(Source("train", [], 1.0, None), row) for row in rows([7, 3, 30, 8, 2, 2, 6, 1])]
    cut = passes(drawn, 99, tokens=16)
    assert [[len(item["input_ids"]) for item in items] for _, items, _ in cut] == [[30], [8, 7], [6, 3], [2, 2, 1]]


@pytest.mark.parametrize("tokens", [None, 12])
@pytest.mark.parametrize("count", [8, 3, 1])
def test_processes_share_every_row_and_make_as_many_passes(count, tokens):
    drawn = [(Source("train", [], 1.0, None), row) for row in rows(np.arange(1, count + 1))]
    cuts = [passes(drawn, 2, tokens, rank, 2) for rank in (0, 1)]
    seen = sorted(int(item["input_ids"][0]) for cut in cuts for _, items, counts in cut if counts for item in items)
    assert seen == list(range(count))
    assert len(cuts[0]) == len(cuts[1])
    idle = [items for cut in cuts for _, items, counts in cut if not counts]
    assert all(len(items) == 1 for items in idle)
    assert tokens or len(idle) == (1 if count == 1 else 0)


def test_rows_that_surely_fit_follow_the_longest_under_a_budget_of_tokens():
    assert pass_rows(Training(batch_tokens=4096, micro_batch_tokens=1024), 1, lambda: 100) == 10
    assert pass_rows(Training(batch_tokens=4096), 4, lambda: 2000) == 1
    assert pass_rows(Training(batch_size=9), 2, lambda: 2000) == 5
    assert pass_rows(Training(batch_size=9, micro_batch_size=2), 2, lambda: 2000) == 2
    with pytest.raises(UserError, match="less than a row each"):
        pass_rows(Training(batch_size=1), 2, lambda: 1)


def test_packed_rows_are_not_grouped():
    class Packs:
        def packing(self):
            return Packing(8, joined=True)

    refuse_idle_grouping(Training(), Packs())
    with pytest.raises(UserError, match="all of about one length"):
        refuse_idle_grouping(Training(group_by_length=True), Packs())
