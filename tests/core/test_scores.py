"""The score matrix and its summary, against examples computed by hand and against the papers' formulas."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from ftk.parts import Metric, Resampling
from ftk.report.scores import Scores


def filled(tasks: list[str], rows: dict[int, list[float | None]], *, higher: bool = True) -> Scores:
    """Scores of one metric ``m``, recorded stage by stage; None is left unmeasured."""
    scores = Scores(tasks)
    for after, row in rows.items():
        for task, value in zip(tasks, row, strict=True):
            if value is not None:
                scores.record(after, task, [Metric("m", value, higher)])
    return scores


def test_two_stages_by_hand() -> None:
    scores = filled(["capitals", "currencies"], {0: [0.0, 0.01], 1: [0.99, 0.01], 2: [0.97, 0.98]})
    assert scores.matrix("m") == [[0.99, 0.01], [0.97, 0.98]]
    assert scores.start("m") == [0.0, 0.01]
    assert scores.summary("m") == pytest.approx({
        "average": 0.975, "average_incremental": (0.99 + 0.975) / 2, "learning_accuracy": (0.99 + 0.98) / 2,
        "backward_transfer": -0.02, "forward_transfer": 0.0,
        "forgetting": 0.02, "retention": 0.97 / 0.99,
    })  # fmt: skip
    assert scores.retention("m") == [pytest.approx(0.97 / 0.99), None]


def test_the_starting_model_is_the_first_row_where_it_retains_something() -> None:
    scores = filled(["retain", "a", "b"], {0: [0.8, 0.1, 0.2], 1: [0.6, 0.9, 0.5], 2: [0.4, 0.45, 1.0]})
    assert scores.matrix("m") == [[0.8, 0.1, 0.2], [0.6, 0.9, 0.5], [0.4, 0.45, 1.0]]
    assert scores.start("m") == scores.matrix("m")[0]
    assert scores.retention("m") == [pytest.approx(0.5), pytest.approx(0.5), None]
    assert scores.summary("m") == pytest.approx({
        "average": (0.4 + 0.45 + 1.0) / 3,
        "average_incremental": ((0.6 + 0.9) / 2 + (0.4 + 0.45 + 1.0) / 3) / 2,  # after each stage; none is the start
        "learning_accuracy": (0.9 + 1.0) / 2,  # of what stages taught
        "backward_transfer": ((0.4 - 0.8) + (0.45 - 0.9)) / 2,
        "forward_transfer": 0.5 - 0.2,
        "forgetting": ((0.8 - 0.4) + (0.9 - 0.45)) / 2,
        "retention": 0.5,
    })  # fmt: skip


def test_the_best_earlier_score_may_come_after_the_task_was_learned() -> None:
    scores = filled(["a", "b", "c"], {1: [0.5, 0, 0], 2: [0.8, 0.7, 0], 3: [0.6, 0.7, 0.9]})
    summary = scores.summary("m")
    assert summary["forgetting"] == pytest.approx((0.8 - 0.6 + 0.0) / 2)
    assert summary["backward_transfer"] == pytest.approx((0.6 - 0.5 + 0.0) / 2)


def test_lower_is_better_turns_every_sign_and_the_fraction() -> None:
    scores = filled(["a", "b"], {0: [100.0, 50.0], 1: [10.0, 40.0], 2: [20.0, 5.0]}, higher=False)
    assert scores.summary("m") == {
        "average": 12.5, "average_incremental": 11.25, "learning_accuracy": 7.5,
        "backward_transfer": -10.0, "forward_transfer": 10.0,
        "forgetting": 10.0, "retention": 0.5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("best", "last", "higher", "retention"),
    [(0.0, 0.0, True, None), (0.0, 0.5, True, None), (-1.0, -2.0, True, None), (0.5, 0.0, True, 0.0),
     (0.5, 1.0, True, 2.0), (0.0, 0.0, False, None), (0.0, 1.0, False, None), (1.0, 0.0, False, None),
     (2.0, 8.0, False, 0.25)],
)  # fmt: skip
def test_retention_where_a_fraction_says_nothing(
    best: float, last: float, higher: bool, retention: float | None
) -> None:
    scores = filled(["a", "b"], {1: [best, None], 2: [last, None]}, higher=higher)
    assert scores.retention("m") == [retention, None]


@pytest.mark.parametrize("retained", [False, True])
@pytest.mark.parametrize("higher", [False, True])
def test_random_matrices_against_the_formulas_of_the_papers(retained: bool, higher: bool) -> None:
    random = np.random.default_rng(0)
    for count in (2, 3, 5):
        # Strictly positive, so that every fraction is defined.
        matrix = random.uniform(0.1, 1.0, (count, count))
        start = matrix[0] if retained else random.uniform(0.1, 1.0, count)
        tasks = ["retain" if retained else "t0", *[f"t{index}" for index in range(1, count)]]
        stages = {0: start.tolist()}
        stages.update({row + (not retained): matrix[row].tolist() for row in range(count)})
        summary = filled(tasks, stages, higher=higher).summary("m")

        sign = 1 if higher else -1
        past = matrix[:-1, :-1]
        peak = past.max(axis=0) if higher else past.min(axis=0)
        fraction = matrix[-1, :-1] / peak if higher else peak / matrix[-1, :-1]
        ahead = sign * (np.diagonal(matrix, offset=1) - start[1:])[1 if retained else 0 :]
        assert summary["average"] == pytest.approx(matrix[-1].mean())
        first = 1 if retained else 0
        averages = [matrix[row, : row + 1].mean() for row in range(first, count)]
        assert summary["average_incremental"] == pytest.approx(np.mean(averages))
        assert summary["learning_accuracy"] == pytest.approx(matrix.diagonal()[first:].mean())
        assert summary["backward_transfer"] == pytest.approx(sign * (matrix[-1] - matrix.diagonal())[:-1].mean())
        assert summary["forgetting"] == pytest.approx(sign * (peak - matrix[-1, :-1]).mean())
        assert summary["retention"] == pytest.approx(fraction.mean())
        assert summary["forward_transfer"] == (pytest.approx(ahead.mean()) if ahead.size else None)


def test_one_stage_has_nothing_to_forget() -> None:
    scores = filled(["a"], {0: [0.1], 1: [0.9]})
    assert scores.summary("m") == {
        "average": 0.9, "average_incremental": 0.9, "learning_accuracy": 0.9,
        "backward_transfer": None, "forward_transfer": None,
        "forgetting": None, "retention": None,
    }  # fmt: skip


def test_a_run_under_way_is_summed_up_over_what_it_learned_so_far() -> None:
    scores = filled(["a", "b", "c"], {0: [0.0, 0.0, 0.9], 1: [0.8, 0.0, 0.9], 2: [0.4, 0.6, 0.9]})
    assert len(scores.matrix("m")) == 2
    summary = scores.summary("m")
    assert summary["average"] == pytest.approx(0.5)
    assert summary["retention"] == pytest.approx(0.5)
    before_any_stage = filled(["a", "b"], {0: [0.1, 0.2]})
    assert before_any_stage.matrix("m") == []
    assert set(before_any_stage.summary("m").values()) == {None}


def test_a_metric_that_a_task_lacks_counts_nowhere() -> None:
    scores = Scores(["a", "b"])
    for after, value in ((1, 0.8), (2, 0.4)):
        scores.record(after, "a", [Metric("accuracy", value, True), Metric("accuracy@new", value / 2, True)])
        scores.record(after, "b", [Metric("perplexity", 10.0 * after, False)])
    assert scores.metrics == ("accuracy", "accuracy@new", "perplexity")
    assert scores.matrix("perplexity") == [[None, 10.0], [None, 20.0]]
    assert scores.summary("accuracy@new")["average"] == pytest.approx(0.2)
    assert scores.summary("perplexity")["forgetting"] is None
    assert scores.summary("accuracy")["retention"] == pytest.approx(0.5)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_finite_number_is_null(value: float) -> None:
    scores = filled(["a", "b"], {1: [0.5, 0.5], 2: [value, 0.5]})
    assert scores.matrix("m")[1] == [None, 0.5]
    assert scores.summary("m")["retention"] is None
    json.dumps(scores.to_json(), allow_nan=False)


def test_measuring_again_replaces() -> None:
    scores = filled(["a"], {1: [0.2]})
    scores.record(1, "a", [Metric("m", 0.3, True)])
    assert scores.matrix("m") == [[0.3]]


def test_json_and_back() -> None:
    for first in ("a", "retain"):
        scores = filled([first, "b", "c"], {0: [0.3, 0.1, 0.2], 1: [0.5, None, 0.2], 2: [0.4, 0.9, None]})
        scores.record(1, "b", [Metric("loss", 2.5, False)])
        form = json.loads(json.dumps(scores.to_json()))
        back = Scores.from_json(form)
        assert back.to_json() == form == scores.to_json()
        back.record(2, "c", [Metric("m", 1.0, True)])
        assert back.matrix("m")[-1][2] == 1.0
    assert list(form) == ["tasks", "matrix", "higher_is_better", "start", "summary", "details"]
    empty = Scores(["retain", "b"])
    assert Scores.from_json(empty.to_json()).to_json() == empty.to_json()


def test_what_is_told_beside_a_number_is_kept_with_it() -> None:
    scores = filled(["a", "b"], {1: [0.5, 0.1]})
    hits = np.arange(50) < 30
    told = Metric("m", 0.6, True, {"labels": ["x"]}, Resampling(50, lambda rows: float(hits[rows].mean())))
    scores.record(2, "b", [told])
    scores.record(2, "a", [replace(told, resampling=None)])
    scores.record(0, "a", [told])
    start, first, second = scores.details("m")
    assert (start["after"], start["task"]) == (0, "a")
    assert first == {"after": 2, "task": "a", "labels": ["x"]}
    assert {**second, "interval": None} == {"after": 2, "task": "b", "labels": ["x"], "interval": None}
    assert start["interval"] == second["interval"] == list(told.interval() or ())
    form = json.loads(json.dumps(scores.to_json()))
    assert Scores.from_json(form).to_json() == form
    assert Scores.from_json({key: form[key] for key in form if key != "details"}).details("m") == []


def test_an_interval_is_where_most_means_of_rows_drawn_anew_lie() -> None:
    values = np.random.default_rng(3).normal(size=200)
    low, high = Metric("m", 0.0, True, {}, Resampling(200, lambda rows: float(values[rows].mean()))).interval() or (
        0,
        0,
    )
    theirs = stats.bootstrap((values,), np.mean, method="percentile", rng=np.random.default_rng(1)).confidence_interval
    assert [low, high] == pytest.approx([theirs.low, theirs.high], abs=0.01)
    broken = Resampling(200, lambda rows: float("nan"))
    assert Metric("m", 0.0, True, {}, broken).interval() is None
    assert Metric("m", 0.0, True).interval() is None


def test_what_is_not_of_the_run_is_refused() -> None:
    scores = filled(["a", "b"], {1: [0.1, 0.1]})
    with pytest.raises(ValueError, match="no task 'c'"):
        scores.record(1, "c", [])
    with pytest.raises(ValueError, match="no stage 3"):
        scores.record(3, "a", [])
    with pytest.raises(ValueError, match="other direction"):
        scores.record(2, "a", [Metric("m", 0.1, False)])
    with pytest.raises(ValueError, match="one name"):
        Scores(["a", "a"])
    with pytest.raises(ValueError, match="no stage 2"):
        Scores(["retain", "b"]).record(2, "b", [])


def test_scores_and_tables_need_no_torch() -> None:
    code = "import sys, ftk.report.scores, ftk.report.terminal, ftk.report.model_card; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_tasks_that_one_stage_teaches_are_one_body_of_knowledge() -> None:
    tasks = ["retain", "joint/a", "joint/b", "after"]
    rows = {0: [0.8, 0.1, 0.2, 0.3], 1: [0.7, 0.9, 0.6, 0.4], 2: [0.4, 0.6, 0.5, 1.0]}
    scores = filled(tasks, rows)
    assert scores.matrix("m") == list(rows.values())
    assert [scores.learned(task) for task in range(4)] == [0, 1, 1, 2]
    assert scores.retention("m") == [0.5, pytest.approx(0.6 / 0.9), pytest.approx(0.5 / 0.6), None]
    assert scores.summary("m") == pytest.approx({
        "average": (0.4 + 0.6 + 0.5 + 1.0) / 4,
        "average_incremental": ((0.7 + 0.9 + 0.6) / 3 + (0.4 + 0.6 + 0.5 + 1.0) / 4) / 2,
        "learning_accuracy": (0.9 + 0.6 + 1.0) / 3,
        "backward_transfer": ((0.4 - 0.8) + (0.6 - 0.9) + (0.5 - 0.6)) / 3,
        "forward_transfer": 0.4 - 0.3,
        "forgetting": ((0.8 - 0.4) + (0.9 - 0.6) + (0.6 - 0.5)) / 3,
        "retention": (0.5 + 0.6 / 0.9 + 0.5 / 0.6) / 3,
    })  # fmt: skip
    again = Scores.from_json(json.loads(json.dumps(scores.to_json())))
    assert again.summary("m") == scores.summary("m")
    first = filled(tasks[1:], {0: [0, 0, 0], 1: [0.9, 0.6, 0.4]})
    assert first.matrix("m") == [[0.9, 0.6, 0.4]]
    assert first.summary("m")["average"] == pytest.approx((0.9 + 0.6) / 2)
    assert first.retention("m") == [None, None, None]
    with pytest.raises(ValueError, match="no stage 3"):
        scores.record(3, "after", [Metric("m", 1.0, True)])
