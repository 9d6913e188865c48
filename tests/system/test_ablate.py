"""An ablation from the command to its table: a recipe that forgets, stopped in the middle and gone on with."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from ftk.events import RunEvent
from ftk.report.series import SeriesDisplay
from tests.core.command import ftk_
from tests.system.small import ONE_STAGE, events_of, report_of, written
from tests.two_tasks import stream

RECIPE = stream('[[stage.mitigation]]\nuse = "l2sp"\nstrength = 3.0', steps=60)


def stopping(monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    """A signal comes in the second stage of the run in this folder."""
    shown, here = SeriesDisplay.__call__, [""]

    def show(self: SeriesDisplay, event: RunEvent) -> None:
        here[0] = event.data["folder"] if event.kind == "run_started" else here[0]
        if event.kind == "step" and event.data["stage"] == 2 and folder in here[0]:
            signal.raise_signal(signal.SIGINT)
        shown(self, event)

    monkeypatch.setattr(SeriesDisplay, "__call__", show)


def test_an_ablation_goes_on_where_it_was_stopped_and_says_what_a_mitigation_is_worth(
    here: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FTK_CACHE", str(tmp_path / "cache"))
    recipe = str(written(here, RECIPE))
    with monkeypatch.context() as patch:
        stopping(patch, "without-l2sp")
        stopped = ftk_("ablate", recipe, "--json")
    assert stopped.exit_code == 130
    assert "go on with: ftk" in stopped.stderr
    folder = here / "runs" / "small-ablation"
    done = ftk_("ablate", recipe, "--json")
    assert done.exit_code == 0, done.stderr
    assert "[1/3] full, seed 3: perplexity " in done.stderr
    assert "finished before" in done.stderr

    told = json.loads(done.stdout)
    assert told == json.loads((folder / "ablation.json").read_text())
    assert [variant["name"] for variant in told["variants"]] == ["full", "without-l2sp", "joint"]
    assert {run["status"] for run in told["runs"]} == {"completed"}
    full, without, joint = (folder / name / "seed-3" for name in ("full", "without-l2sp", "joint"))
    assert [len(events_of(run, "run_started")) for run in (full, without, joint)] == [1, 2, 1]
    assert [stage.get("from_cache") for stage in report_of(without)["stages"]] == [True, None]
    assert [event["stage"] for event in events_of(without, "stage_started")] == [2, 2]
    assert report_of(full)["matrix"]["perplexity"][0] == report_of(without)["matrix"]["perplexity"][0]

    rows = {row["label"]: row for row in told["comparison"]["rows"]}
    assert rows["without-l2sp"]["retention"]["difference"]["over_rows"][1] < 0, "the pull keeps the old"
    assert rows["joint"]["retention"]["value"] > rows["without-l2sp"]["retention"]["value"]
    assert rows["joint"]["joint"]
    assert rows["joint"]["target"]["value"] < report_of(joint)["start"]["perplexity"][1] / 2, "it learned both"
    points = json.loads((folder / "points.json").read_text())["points"]
    assert [(point["label"], point["group"]) for point in points] == [
        ("full", "variants"), ("without-l2sp", "variants"), ("joint", "upper bound"),
    ]  # fmt: skip
    assert points[1]["y"] == rows["without-l2sp"]["retention"]["value"]
    assert (folder / points[2]["run"]) == joint
    assert "without-l2sp" in (folder / "report.html").read_text()
    assert json.loads(ftk_("compare", "runs/small-ablation", "--json").stdout) == told["comparison"]
    latex = ftk_("compare", str(folder), "--format", "latex").stdout
    assert [line.split(" & ")[0] for line in latex.splitlines() if " & 3 & " in line] == list(rows)

    changed = ftk_("ablate", recipe, "--set", "training.steps=61")
    assert changed.exit_code == 2
    assert "the ablation of recipe `small`, before it changed: stage `capitals`: training.steps is 61" in changed.stderr
    other = ftk_("ablate", str(written(here, RECIPE.replace('"small"', '"other"'))), "--output", str(folder))
    assert other.exit_code == 2
    assert "holds the ablation of recipe `small`, and this is `other`" in other.stderr
    assert "--fresh" in other.stderr
    assert json.loads((folder / "ablation.json").read_text()) == told


def test_a_metric_that_nothing_measures_and_a_folder_of_something_else_are_refused_before_anything_runs(
    here: Path,
) -> None:
    recipe = str(written(here, RECIPE))
    misspelt = ftk_("ablate", recipe, "--metric", "perplexitty")
    assert misspelt.exit_code == 2
    assert "--metric perplexitty: no evaluator" in misspelt.stderr
    assert "did you mean `perplexity`?" in misspelt.stderr
    blind = ftk_("ablate", str(written(here, ONE_STAGE, "blind.toml")))
    assert blind.exit_code == 2
    assert "add an [[evaluator]]" in blind.stderr
    into = ftk_("ablate", recipe, "--output", ".")
    assert into.exit_code == 2
    assert "holds files, but no ablation of ftk" in into.stderr
    assert sorted(path.name for path in here.iterdir()) == ["blind.toml", "recipe.toml"]


def test_a_metric_that_is_known_only_when_it_is_measured_is_looked_for_after_the_first_run(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ftk_plugins.evaluators.perplexity.options.PerplexityOptions.metrics", lambda _: ())
    done = ftk_("ablate", str(written(here, RECIPE)), "--set", "training.steps=1", "--metric", "perplexitty")
    assert done.exit_code == 2, done.output
    assert "did you mean `perplexity`?" in done.stderr
    assert len(list(here.glob("runs/*/*/seed-3"))) == 1
