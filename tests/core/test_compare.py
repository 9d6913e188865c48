"""Runs side by side: numbers and intervals by hand, what is refused, tables for each reader."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from ftk.comparing.comparison import compare
from ftk.comparing.intervals import over_seeds
from ftk.comparing.quality import Matrix, asked_of, quality, so_far
from ftk.comparing.runs import read_run, read_runs
from ftk.comparing.tables import texts
from ftk.errors import UserError
from ftk.report.scores import Scores
from tests.core.command import ftk_
from tests.core.finished import hits, mean_of, two_stages, write_run


def drawn(*arrays: np.ndarray) -> np.ndarray:
    """The mean of each array on the same thousand draws of its rows, ``(1000, arrays)``."""
    random = np.random.Generator(np.random.PCG64(0))
    draws = [random.integers(40, size=40) for _ in range(1000)]
    return np.array([[array[rows].mean() for array in arrays] for rows in draws])


def test_intervals_of_differences_are_the_paired_bootstrap(tmp_path: Path) -> None:
    runs = [two_stages(tmp_path / "a", 1, recipe="a"), two_stages(tmp_path / "b", 2, recipe="b", kept=0.3)]
    first, second = compare(read_runs(runs)).rows
    new = drawn(hits(201, share=0.8), hits(202, share=0.8))
    difference = second.differences["target"]
    assert difference is not None
    assert difference.over_seeds is None
    assert difference.value == pytest.approx(hits(202, share=0.8).mean() - hits(201, share=0.8).mean())
    assert difference.over_rows == pytest.approx(np.percentile(new[:, 1] - new[:, 0], [2.5, 97.5]), abs=1e-6)
    kept = drawn(hits(1, share=0.9), hits(101, share=0.5), hits(2, share=0.9), hits(102, share=0.3))
    shares = kept[:, 3] / kept[:, 2] - kept[:, 1] / kept[:, 0]
    retention = second.differences["retention"]
    assert retention is not None
    assert retention.over_rows == pytest.approx(np.percentile(shares, [2.5, 97.5]), abs=1e-6)
    alone = first.measures["target"]
    assert alone is not None
    assert alone.interval == pytest.approx(np.percentile(new[:, 0], [2.5, 97.5]), abs=1e-6)
    assert first.differences["target"] is None


def test_the_numbers_are_those_of_the_report(tmp_path: Path) -> None:
    run = read_run(two_stages(tmp_path / "a", 1))
    asked = asked_of(run.scores)
    assert asked is not None
    found, summary = quality(Matrix(run, asked)), run.scores.summary("accuracy")
    for name in ("average", "forgetting", "retention"):
        assert found[name][0] == pytest.approx(summary[name])
    assert found["target"][0] == run.scores.matrix("accuracy")[-1][1]


def test_a_metric_of_which_less_is_better(tmp_path: Path) -> None:
    values = {(1, "old"): 2.0, (2, "old"): 4.0, (1, "new"): 9.0, (2, "new"): 3.0}
    cells = {cell: [mean_of(np.full(5, value), name="perplexity", higher=False)] for cell, value in values.items()}
    [row] = compare(read_runs([write_run(tmp_path / "a", cells)])).rows
    told = {name: found and found.value for name, found in row.measures.items()}
    assert told == {"target": 3.0, "retention": 0.5, "average": 3.5, "forgetting": 2.0}


def test_seeds_of_one_recipe_make_one_row_and_pair_by_seed(tmp_path: Path) -> None:
    runs = [two_stages(tmp_path / f"{name}-{seed}", seed, recipe=name, kept=kept)
            for name, kept in (("a", 0.9), ("b", 0.2)) for seed in (3, 1, 2)]  # fmt: skip
    first, second = compare(read_runs(runs)).rows
    assert (first.label, second.label) == ("a", "b")
    assert first.seeds == [1, 2, 3]
    values = {kept: [hits(seed + 100, share=kept).mean() / hits(seed, share=0.9).mean() for seed in (1, 2, 3)]
              for kept in (0.9, 0.2)}  # fmt: skip
    kept, difference = first.measures["retention"], second.differences["retention"]
    assert kept is not None
    assert difference is not None
    assert kept.value == pytest.approx(np.mean(values[0.9]))
    low, high = stats.t.interval(0.95, 2, np.mean(values[0.9]), stats.sem(values[0.9]))
    assert kept.interval == pytest.approx((low, high), rel=1e-3)
    pairs = np.subtract(values[0.2], values[0.9])
    low, high = stats.t.interval(0.95, 2, pairs.mean(), stats.sem(pairs))
    assert difference.interval == pytest.approx((low, high), rel=1e-3)


@pytest.mark.parametrize("count", [2, 3, 10, 31, 32, 60])
def test_the_interval_over_seeds_is_students(count: int) -> None:
    values = np.random.default_rng(count).normal(size=count)
    expected = stats.t.interval(0.95, count - 1, values.mean(), stats.sem(values))
    assert over_seeds(values.tolist()) == pytest.approx(expected, rel=3e-3)


def test_a_joint_run_is_held_against_the_best_of_the_first(tmp_path: Path) -> None:
    joint = {(after, f"joint/{task}"): [mean_of(hits(seed) * after)]
             for task, seed in (("old", 7), ("new", 8)) for after in (0, 1)}  # fmt: skip
    runs = [two_stages(tmp_path / "a", 1), write_run(tmp_path / "j", joint, tasks=("joint/old", "joint/new"), recipe=1)]
    _, row = compare(read_runs(runs)).rows
    assert row.joint
    told = {name: found and found.value for name, found in row.measures.items()}
    assert told["target"] == hits(8).mean()
    assert told["retention"] == pytest.approx(hits(7).mean() / hits(1, share=0.9).mean())
    assert told["average"] == pytest.approx((hits(7).mean() + hits(8).mean()) / 2)
    assert told["forgetting"] == pytest.approx(hits(1, share=0.9).mean() - hits(7).mean())


def test_costs_are_counted_and_the_energy_follows_from_the_watts(tmp_path: Path) -> None:
    runs = [two_stages(tmp_path / "a", 1), two_stages(tmp_path / "b", 1, recipe="b", checkpointing=True)]
    first, second = compare(read_runs(runs), watts=100).rows
    assert first.costs["seconds"] == 6.0
    assert first.costs["flops"] == 200 * (4 * 50 + 2 * 10)
    assert second.costs["flops"] == 200 * (6 * 50 + 2 * 10)
    assert first.costs["watt_hours"] == pytest.approx(600 / 3600)
    assert compare(read_runs(runs)).rows[0].watts == 65


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([0, 1, 9, 3, 4, 5], r"row 3 of .*a is not in .*b; row 3 of .*b is not in .*a\n"),
        ([7, 8, 9, 3, 4, 5], r"rows 1, 2, 3 of .*a are not in .*b; rows 1, 2, 3 of"),
        ([0, 1, 2, 3, 4, 5, 6], r": row 7 of .*b is not in .*a\n"),
        ([0, 2, 1, 3, 4, 5], "the same in another order, from row 2 on"),
    ],
)
def test_runs_measured_on_different_rows_are_refused_by_name(tmp_path: Path, rows: list[int], told: str) -> None:
    for name, numbers in (("a", list(range(6))), ("b", rows)):
        right = hits(1, rows=len(numbers))
        cells = {(after, task): [mean_of(right, np.array(numbers) + 100 * (task == "new"))]
                 for after in (1, 2) for task in ("old", "new")}  # fmt: skip
        write_run(tmp_path / name, cells, recipe=name)
    with pytest.raises(UserError, match=told) as error:
        compare(read_runs([tmp_path / "a", tmp_path / "b"]))
    assert "different rows of `old` (accuracy)" in str(error.value)


def test_what_cannot_be_compared_is_refused_with_the_reason(tmp_path: Path) -> None:
    good = two_stages(tmp_path / "good", 1)
    other = write_run(tmp_path / "other", {(1, "old"): [mean_of(hits(1))]}, tasks=("old",), recipe=1)
    same = two_stages(tmp_path / "same", 1)
    old = two_stages(tmp_path / "schema", 2, schema=1)
    undone = two_stages(tmp_path / "undone", 2, status="running")
    damaged = two_stages(tmp_path / "damaged", 2)
    (damaged / "rows.safetensors").write_bytes(b"\xff" * 100)
    bare = two_stages(tmp_path / "bare", 2)
    (bare / "rows.safetensors").unlink()
    cut = two_stages(tmp_path / "cut", 2)
    (cut / "report.json").write_text('{"schema"')
    strange = two_stages(tmp_path / "strange", 2, stages=[{"tokens": "many"}])
    (tmp_path / "empty").mkdir()
    (hurt := tmp_path / "hurt").mkdir()
    (hurt / "ablation.json").write_text('{"runs": [7]}')
    (begun := tmp_path / "begun").mkdir()
    (begun / "ablation.json").write_text("{}")
    for paths, told in (
        ([good, other], "different tasks: old, new; and old"),
        ([good, same], "same recipe with the same seed"),
        ([good, old], "is of schema 1"),
        ([good, undone], r"has not completed \(running\)"),
        ([good, damaged], "rows.safetensors: cannot be read"),
        ([good, bare], "rows.safetensors: is missing"),
        ([good, cut], "report.json: cannot be read"),
        ([good, strange], "damaged"),
        ([good, tmp_path / "empty"], "is no run's folder"),
        ([good, tmp_path / "goood"], "did you mean `good`"),
        ([tmp_path], "runs in it: "),
        ([hurt], "ablation.json: is damaged"),
        ([begun], "is an ablation that has not ended"),
        ([good, "--metric", "acuracy"], "did you mean `accuracy`"),
    ):
        done = ftk_("compare", *map(str, paths))
        assert done.exit_code == 2, done.output
        assert re.search(told, done.output), done.output
        assert "Traceback" not in done.output


HOSTILE = "=cmd|x & 50%_{y}\\ [z](u) <b>\x1b[31m"


@pytest.fixture
def hostile(tmp_path: Path) -> list[str]:
    return [str(two_stages(tmp_path / name, seed, recipe=name)) for seed, name in enumerate((HOSTILE, "b"))]


def test_markdown_latex_and_csv_say_what_a_name_holds_and_obey_none_of_it(hostile: list[str]) -> None:
    markdown = ftk_("compare", *hostile, "--format", "markdown").stdout
    lines = [line for line in markdown.splitlines() if line.startswith("| ")]
    assert len({line.replace("\\|", "").count("|") for line in lines[:4]}) == 1
    assert r"=cmd\|x \& 50%\_\{y\}\\ \[z\](u) \<b\>\\x1b\[31m" in markdown
    latex = ftk_("compare", *hostile, "--format", "latex").stdout
    body = next(line for line in latex.splitlines() if line.startswith("=cmd"))
    assert (
        r"=cmd\textbar{}x \& 50\%\_\{y\}\textbackslash{} [z](u) \textless{}b\textgreater{}\textbackslash{}x1b" in body
    )
    assert body.replace(r"\&", "").count("&") == 7
    table = list(csv.DictReader(io.StringIO(ftk_("compare", *hostile, "--format", "csv").stdout)))
    assert [row["run"][:5] for row in table] == ["'=cmd", "b"]
    assert float(table[0]["target"]) == hits(200, share=0.8).mean()
    assert float(table[1]["target_difference"]) == pytest.approx(
        hits(201, share=0.8).mean() - hits(200, share=0.8).mean()
    )
    text = ftk_("compare", *hostile).stdout
    assert "\x1b" not in markdown + latex + text


def test_on_a_narrow_terminal_columns_go_below_and_none_is_cut(hostile: list[str]) -> None:
    [whole, _] = texts(compare(read_runs([Path(run) for run in hostile])))
    assert whole.fitted(1000) == [whole]
    pieces = whole.fitted(80)
    assert len(pieces) > 1
    assert [piece.columns[0] for piece in pieces] == ["run"] * len(pieces)
    assert tuple(column for piece in pieces for column in piece.columns[1:]) == whole.columns[1:]
    for piece in pieces:
        assert sum(max(map(len, cells)) + 2 for cells in zip(piece.columns, *piece.rows, strict=True)) <= 80
        assert [row[0] for row in piece.rows] == [row[0] for row in whole.rows]


def test_json_tells_everything_and_goes_with_no_format(hostile: list[str]) -> None:
    told = json.loads(ftk_("compare", *hostile, "--json").stdout)
    first, second = told["rows"]
    assert first["label"] == HOSTILE
    assert first["target"]["difference"] is None
    assert set(second["retention"]) == {"value", "over_rows", "over_seeds", "difference"}
    assert second["seeds"] == [1]
    assert ftk_("compare", *hostile, "--json", "--format", "csv").exit_code == 2


def test_comparing_needs_no_torch() -> None:
    code = "import sys, ftk.cli.compare; assert 'torch' not in sys.modules; assert 'datasets' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_a_run_has_so_far_at_its_end_is_what_a_comparison_says_of_it(tmp_path: Path) -> None:
    """Three stages; the second's task is measured by something of another scale and direction."""
    tasks = ("a", "b", "c")
    cells = {
        (1, "a"): mean_of(hits(1, share=0.9)), (2, "a"): mean_of(hits(2, share=0.95)), (3, "a"): mean_of(hits(3)),
        (2, "b"): mean_of(np.full(40, 7.0), name="loss", higher=False),
        (3, "b"): mean_of(np.full(40, 8.0), name="loss", higher=False),
        (3, "c"): mean_of(hits(4)),
    }  # fmt: skip
    whole = {cell: [metric] for cell, metric in cells.items()}
    run = read_run(write_run(tmp_path / "run", whole, tasks=tasks, stages=[{}, {}, {}]))
    asked = asked_of(run.scores)
    assert asked is not None
    measured = quality(Matrix(run, asked))
    before = Scores(tasks)
    for (after, task), metric in cells.items():
        before.record(min(after, 2), task, [metric] if after < 3 else [])
    before.higher_is_better |= run.scores.higher_is_better
    last = {task: {cells[3, task].name: float(cells[3, task].value)} for task in tasks}
    assert so_far(before, "c", last) == pytest.approx((measured["target"][0], measured["retention"][0]))
    assert so_far(before, "c", last, "loss") is None, "the stage's own task has no such metric"
    assert so_far(before, "b", {"b": {"loss": 7.0}}) == (-7.0, 1.0)
    assert so_far(before, "c", {**last, "b": {"loss": None}}) == pytest.approx(
        (measured["target"][0], measured["retention"][0] - 7.0 / 8.0 / 2)
    )
