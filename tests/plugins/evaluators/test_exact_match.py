"""Exact match on a model that has learned its answers by heart."""

from __future__ import annotations

from typing import Any

import pytest

from ftk.testing import toy_context, toy_task
from ftk_plugins.evaluators.exact_match.exact_match import ExactMatch
from ftk_plugins.evaluators.exact_match.options import ExactMatchOptions
from tests.plugins.evaluators.talk import ROWS, Talk


def measure(model: Any, outputs: list[str], **options: Any) -> float:
    """The share of right answers where the rows have these outputs."""
    task = toy_task([{**row, "output": text} for row, text in zip(ROWS, outputs, strict=True)], Talk())
    (metric,) = ExactMatch(ExactMatchOptions(**options)).measure(model, task, toy_context(model, task.objective))
    assert metric.name == "exact_match"
    assert metric.higher_is_better
    return metric.value


def test_it_counts_the_answers_that_are_the_row_s(learned: Any) -> None:
    assert measure(learned, ["Paris", "4", "He", "日本の首都", "no no"]) == 1.0
    assert measure(learned, ["Paris.", "4", "H", "日本の首都", "no"]) == 2 / 5


def test_surrounding_space_does_not_count(learned: Any) -> None:
    assert measure(learned, [" Paris\n", "4", "He", "日本の首都", "no  no"]) == 4 / 5


@pytest.mark.parametrize(
    ("fold_case", "fold_width", "right"),
    [(False, False, 3), (True, False, 4), (False, True, 4), (True, True, 5)],
)
def test_case_and_width_count_unless_folded(learned: Any, fold_case: bool, fold_width: bool, right: int) -> None:
    outputs = ["PARIS", "４", "He", "日本の首都", "no no"]
    assert measure(learned, outputs, fold_case=fold_case, fold_width=fold_width) == right / 5


def test_a_cut_answer_and_the_batch_size(learned: Any) -> None:
    outputs = [row["output"] for row in ROWS]
    assert measure(learned, outputs, max_new_tokens=2) == 2 / 5
    assert measure(learned, outputs, batch_size=2) == 1.0
