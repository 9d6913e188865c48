"""Keyword accuracy on a model that has learned its answers by heart."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ftk import UserError
from ftk.testing import toy_context, toy_task
from ftk_plugins.evaluators.keyword_accuracy.keyword_accuracy import KeywordAccuracy
from ftk_plugins.evaluators.keyword_accuracy.options import KeywordAccuracyOptions
from tests.plugins.evaluators.talk import ROWS, Talk


def measure(model: Any, keywords: list[Any], **options: Any) -> float:
    """The accuracy where the rows have these keywords."""
    rows = [{"instruction": row["instruction"], "output": row["output"]} for row in ROWS]
    column = options.get("column", "keywords")
    task = toy_task([{**row, column: words} for row, words in zip(rows, keywords, strict=True)], Talk())
    evaluator = KeywordAccuracy(KeywordAccuracyOptions(**options))
    (metric,) = evaluator.measure(model, task, toy_context(model, task.objective))
    assert metric.name == "keyword_accuracy"
    assert metric.higher_is_better
    return metric.value


RIGHT = [["Paris"], ["4"], ["He"], ["日本", "首都"], ["no"]]


def test_it_counts_the_rows_that_hold_their_keywords(learned: Any) -> None:
    assert measure(learned, RIGHT) == 1.0
    assert measure(learned, [["Paris"], ["5"], ["H"], ["日本", "首都"], ["yes"]]) == 2 / 5


def test_all_of_them_or_any_of_them(learned: Any) -> None:
    keywords = [["Paris", "France"], ["4"], ["He"], ["日本", "中国"], ["no"]]
    assert measure(learned, keywords) == 3 / 5
    assert measure(learned, keywords, match="any") == 1.0


def test_case_and_width_do_not_count_unless_asked(learned: Any) -> None:
    keywords = [["PARIS"], ["４"], ["He"], ["首都"], ["no"]]
    assert measure(learned, keywords) == 1.0
    assert measure(learned, keywords, fold_case=False) == 4 / 5
    assert measure(learned, keywords, fold_width=False) == 4 / 5


def test_a_part_of_a_word_is_not_the_word_unless_asked(learned: Any) -> None:
    keywords = [["Par"], ["4"], ["H"], ["首"], ["no"]]
    assert measure(learned, keywords) == 3 / 5
    assert measure(learned, keywords, boundary=False) == 1.0


def test_the_answer_is_cut_off_at_the_limit(learned: Any) -> None:
    assert measure(learned, RIGHT, max_new_tokens=2) == 3 / 5


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_the_batch_size_changes_nothing(learned: Any, batch_size: int) -> None:
    assert measure(learned, RIGHT, batch_size=batch_size) == 1.0


def test_one_keyword_may_stand_alone_in_a_column_of_any_name(learned: Any) -> None:
    assert measure(learned, ["Paris", "4", "He", "首都", "no"], column="gold") == 1.0


def test_numbers_are_written_out(learned: Any) -> None:
    assert measure(learned, [[5], [4], [3], [2], [1]]) == 1 / 5


@pytest.mark.parametrize("nothing", [None, [], [" "], ["4", ""], [None]])
def test_a_row_without_keywords_is_an_error_that_names_row_and_column(learned: Any, nothing: Any) -> None:
    keywords = [["Paris"], nothing, ["He"], ["首都"], ["no"]]
    with pytest.raises(UserError, match=r"toy, row 2: column `keywords` holds no keywords.*\n.*`column`"):
        measure(learned, keywords)


def test_processes_add_up(learned: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []

    def meet(found: list[Any], own: Any) -> None:
        told.append(own)
        found[:] = [*told, *[[]] * (len(found) - len(told))]

    monkeypatch.setattr(torch.distributed, "all_gather_object", meet)
    task = toy_task([*ROWS[1:], {**ROWS[0], "keywords": ["Rome"]}], Talk())
    for rank in range(2):
        ctx = toy_context(learned, task.objective, rank=rank, world_size=2)
        (metric,) = KeywordAccuracy(KeywordAccuracyOptions(batch_size=1)).measure(learned, task, ctx)
    assert [len(own) for own in told] == [3, 2]
    assert metric.value == 4 / 5
