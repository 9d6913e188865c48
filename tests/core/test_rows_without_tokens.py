"""Rows that hold pixels or other numbers: what has positions, what is refused, which rows are the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from ftk import RunFailed, UserError
from ftk.data.batches import passes, refuse_without_lengths
from ftk.data.roles import content_of, text_key
from ftk.parts import Packing, lengths_of
from ftk.parts.packing import packed
from ftk.recipe.training import Training
from ftk.testing import toy_rows, toy_task
from ftk_plugins.objectives.causal_lm.causal_lm import CausalLM
from ftk_plugins.objectives.causal_lm.options import CausalLMOptions
from tests.mixers import mixer_of
from tests.points import ROWS, Pictures, Points


def test_a_row_of_pixels_is_one_position() -> None:
    task = toy_task(ROWS, Pictures())
    assert lengths_of(task.train.items).tolist() == [1] * len(ROWS)
    mixer = mixer_of(task.train.items, task.objective, (), 0)
    cut = passes(mixer.draw(0, len(ROWS)), rows=4)
    assert [len(items) for _, items, _ in cut] == [4, 4, 3]


@pytest.mark.parametrize(
    "options", [{"batch_tokens": 64}, {"batch_size": 4, "group_by_length": True}], ids=["tokens", "grouped"]
)
def test_what_needs_lengths_is_refused_where_there_are_none(options: dict[str, Any]) -> None:
    asked = "batch_tokens" if "batch_tokens" in options else "group_by_length"
    with pytest.raises(UserError, match=rf"training\.{asked}: the rows of `toy` have no lengths"):
        refuse_without_lengths(Training(**options), toy_task(ROWS, Pictures()))
    refuse_without_lengths(Training(**options), toy_task(ROWS, Points()))
    refuse_without_lengths(Training(**options), toy_task(list(toy_rows()), CausalLM(CausalLMOptions())))
    refuse_without_lengths(Training(batch_size=4), toy_task(ROWS, Pictures()))


def test_rows_of_pixels_are_not_cut_nor_joined() -> None:
    items = toy_task(ROWS, Pictures()).train.encoded
    with pytest.raises(RunFailed, match="not all 1-D arrays"):
        packed(items, Packing(4, joined=True), lambda pieces: pieces[0])


def test_rows_without_texts_are_the_same_if_all_they_hold_is() -> None:
    one, same, other = ({"point": [1.0, 2.0], "label": label} for label in (0, 0, 1))
    assert text_key([], one) == text_key([], same) != text_key([], other)
    assert text_key(["A  b"], one) == text_key(["a b"], other)


def test_what_a_row_holds_is_told_apart_by_values_and_not_by_objects() -> None:
    pictures = [np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8), np.ones((2, 2), np.uint8)]
    one, same, other = (content_of({"image": picture, "name": ["a", b"b"]}) for picture in pictures)
    assert one == same != other
    assert content_of({"a": [1, 2]}) != content_of({"a": [12]})
    rows = Dataset.from_list([{"b": 1, "a": None}, {"a": None, "b": 1}])
    assert content_of(rows[0]) == content_of(rows[1])
