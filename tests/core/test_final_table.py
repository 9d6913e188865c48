"""The table that a run ends with, as colours and as plain text."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from ftk.events import RunEvent
from ftk.parts import Metric
from ftk.report.progress import ProgressDisplay
from ftk.report.rows import number, percent
from ftk.report.samples import sample_lines
from ftk.report.scores import Scores
from ftk.report.terminal import final_table, plain_text

Measured = dict[int, dict[str, dict[str, float]]]


def report_of(tasks: list[str], measured: Measured, lower: tuple[str, ...] = ()) -> dict[str, Any]:
    """The scores' part of a report: ``{after: {task: {metric: value}}}``."""
    scores = Scores(tasks)
    for after, row in measured.items():
        for task, metrics in row.items():
            scores.record(after, task, [Metric(name, value, name not in lower) for name, value in metrics.items()])
    return scores.to_json()


def cells(text: str, start: str) -> list[str]:
    """The words of the one line that starts so."""
    (line,) = [line for line in text.splitlines() if line.strip().startswith(start)]
    return line.split()


FORGETFUL = report_of(
    ["retain", "currencies"],
    {
        0: {
            "retain": {"keyword_accuracy": 1.0},
            "currencies": {"keyword_accuracy": 0.0, "keyword_accuracy@unseen_templates": 0.0},
        },
        1: {
            "retain": {"keyword_accuracy": 0.01},
            "currencies": {"keyword_accuracy": 0.98, "keyword_accuracy@unseen_templates": 0.71},
        },
    },
)


def test_it_shows_the_start_the_learning_the_end_and_what_was_kept() -> None:
    text = plain_text(FORGETFUL)
    assert cells(text, "retain") == ["retain", "keyword_accuracy", "1.000", "–", "0.010", "1.0%"]
    assert cells(text, "currencies") == ["currencies", "keyword_accuracy", "0.000", "0.980", "0.980", "–"]
    assert cells(text, "@unseen") == ["@unseen_templates", "0.000", "0.710", "0.710", "–"]
    assert "Learned: currencies 0.000 → 0.980. Lost: retain 1.000 → 0.010 (1.0% kept)." in " ".join(text.split())


def test_it_says_what_was_kept_and_names_a_metric_of_which_less_is_better() -> None:
    values = {
        0: {"a": {"perplexity": 90.0}, "b": {"perplexity": 80.0}},
        1: {"a": {"perplexity": 8.0}, "b": {"perplexity": 70.0}},
        2: {"a": {"perplexity": 8.1}, "b": {"perplexity": 81.0}},
    }
    text = " ".join(plain_text(report_of(["a", "b"], values, ("perplexity",))).split())
    assert "perplexity ↓" in text
    assert "Learned: a perplexity 90.00 → 8.00." in text
    assert "Not learned: b perplexity 80.00 → 81.00." in text
    assert "Kept: a perplexity 8.00 → 8.10 (98.8% kept)." in text


@pytest.mark.parametrize(("end", "colour"), [(0.99, "32"), (0.5, "31")])
def test_what_was_kept_is_green_and_what_was_lost_is_red(end: float, colour: str) -> None:
    report = report_of(["retain", "b"], {0: {"retain": {"m": 1.0}}, 1: {"retain": {"m": end}}})
    written = StringIO()
    Console(file=written, force_terminal=True, color_system="standard", width=80).print(final_table(report))
    assert f"\x1b[{colour}m{end:.3f}" in written.getvalue()
    assert "\x1b" not in plain_text(report)


def test_a_probe_measured_before_its_metric_still_follows_it() -> None:
    report = report_of(["a"], {1: {"a": {"recall@x": 0.1, "f1": 0.2, "recall": 0.3}}})
    words = plain_text(report).split()
    assert [word for word in words if word in ("recall", "@x", "f1")] == ["recall", "@x", "f1"]


def test_nothing_to_lose_is_neither_kept_nor_lost() -> None:
    report = report_of(["a", "b"], {0: {"a": {"m": 0.0}}, 1: {"a": {"m": 0.0}}, 2: {"a": {"m": 0.0}}})
    text = plain_text(report)
    assert "Not learned: a 0.000 → 0.000." in text
    assert "Kept:" not in text
    assert "Lost:" not in text


def test_a_loss_without_a_fraction_is_still_a_loss() -> None:
    report = report_of(["retain", "b"], {0: {"retain": {"score": -1.0}}, 1: {"retain": {"score": -5.0}}})
    assert "Lost: retain -1.000 → -5.00." in plain_text(report)


def test_a_run_cut_short_and_a_run_without_scores_have_a_table_too() -> None:
    assert "0.500" in plain_text(report_of(["a", "b"], {0: {"a": {"m": 0.5}}}))
    assert plain_text(report_of(["a"], {})) == "nothing was measured: the recipe has no evaluators\n"


def test_it_fits_eighty_columns_whatever_the_names() -> None:
    name = "a-stage-with-quite-a-long-name-and-[brackets]"
    report = report_of([name], {0: {name: {"keyword_accuracy": 0.1}}, 1: {name: {"keyword_accuracy": 0.123456}}})
    text = plain_text(report)
    assert max(map(len, text.splitlines())) <= 80
    assert "0.100" in text
    assert "0.123" in text
    assert "[brackets]" in text.replace("\n", "").replace(" ", "") or "brackets" in text


def test_numbers() -> None:
    assert [number(score) for score in (None, 0.99, 1.0, -0.5, 12.341, 1234567.0)] == [
        "–", "0.990", "1.000", "-0.500", "12.34", "1.23e+06",
    ]  # fmt: skip
    assert [percent(share) for share in (None, 0.98765, 1.0)] == ["–", "98.8%", "100.0%"]


def test_answers_of_one_of_several_tasks_are_those_of_its_own_stage_too() -> None:
    told = [
        {"after": after, "task": "both/talk", "answers": [{"row": 1, "prompt": "?", "expected": "e", "answer": answer}]}
        for after, answer in enumerate(("first", "taught", "between", "last"))
    ]
    report = {
        "tasks": ["both/talk"], "details": {"samples": told},
        "stages": [{"name": name} for name in ("both", "more", "most")],
    }  # fmt: skip
    assert [line.plain.split()[-1] for line in sample_lines(report)[3:]] == ["first", "taught", "last"]


def test_twenty_tasks_are_summed_up_and_counted() -> None:
    tasks = [f"task{number}" for number in range(20)]
    rows = {
        after: {
            task: {"accuracy": 0.0 if after <= place else 0.9 - 0.03 * (after - place - 1) * (place in (3, 4, 5, 6))}
            for place, task in enumerate(tasks)
        }
        for after in range(21)
    }
    text = plain_text(report_of(tasks, rows))
    lines = [line for line in text.splitlines() if line]
    assert len(lines) <= 20 + 8
    assert max(map(len, lines)) <= 80
    flat = " ".join(text.split())
    assert "accuracy: average 0.813, average incremental" in flat
    assert "learning accuracy 0.900" in flat
    assert "Learned: 20 of 20 tasks." in flat
    assert "Kept: 15 of 20 tasks." in flat
    worst = "task3 0.900 → 0.420 (46.7% kept), task4 0.900 → 0.450 (50.0% kept), task5 0.900 → 0.480 (53.3% kept), ..."
    assert f"Lost: 4 of 20 tasks ({worst})." in flat


@pytest.mark.parametrize("count", [2, 20])
def test_measuring_many_tasks_is_one_line_of_the_log(count: int) -> None:
    console = Console(file=StringIO(), width=100)
    display = ProgressDisplay(console)
    tasks = [f"task{number}" for number in range(count)]
    display(RunEvent("run_started", {"name": "small", "device": "cpu", "folder": "runs/small", "tasks": tasks}))
    for place, task in enumerate(tasks):
        display(RunEvent("phase", {"text": f"measuring {task}", "done": place, "total": count}))
        display(RunEvent("measured", {"after": 1, "task": task, "metrics": {"accuracy": place / 10}}))
    scores = {task: {"accuracy": 0.5} for task in tasks}
    display(RunEvent("evaluated", {"step": 1, "steps": 2, "scores": scores}))
    told = console.file.getvalue().splitlines()[1:]  # type: ignore[attr-defined]
    evaluated = " ".join(line.strip() for line in told if "measur" not in line)
    if count == 20:
        assert [line for line in told if "measur" in line] == ["  measured 20 tasks, on average accuracy 0.950"]
        assert "(the last 8 of 20 tasks) task12 accuracy 0.5" in evaluated
    else:
        assert "  measured task1: accuracy 0.100" in told
        assert "task0 accuracy 0.500  task1" in evaluated
