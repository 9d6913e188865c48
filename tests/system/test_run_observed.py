"""Who is told of a run: plugins, a terminal, a log; and who is named when a part of it breaks."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

import ftk
from ftk.cli import cli
from ftk.events import RunEvent
from ftk.report.progress import ProgressDisplay
from tests.system.small import FACTS, ONE_STAGE, events_of, written

WATCHER = """
import ftk

SEEN = []

@ftk.hookimpl
def ftk_run_event(event):
    SEEN.append((event.kind, event.data))
"""


def test_plugins_observe_a_run(here: Path, add_plugin: Callable[[str, str], None]) -> None:
    add_plugin("ftk-watch", WATCHER)
    result = ftk.run(written(here, ONE_STAGE), overrides=["training.steps=2"])
    seen = sys.modules["ftk_watch"].SEEN
    logged = [(event.pop("kind"), event) for event in events_of(result.folder)]
    for (kind, data), (logged_kind, event) in zip(seen, logged, strict=True):
        assert kind == logged_kind
        assert event.pop("time") > 0
        assert json.loads(json.dumps(data)) == event


def test_an_observer_that_raises_is_logged_and_left_out(
    here: Path, add_plugin: Callable[[str, str], None], caplog: pytest.LogCaptureFixture
) -> None:
    add_plugin("ftk-watch", WATCHER + "    if event.kind == 'step':\n        raise OSError('the tracker is gone')\n")
    with caplog.at_level(logging.ERROR, logger="ftk"):
        result = ftk.run(written(here, ONE_STAGE), overrides=["training.steps=3"])
    assert result.report["status"] == "completed"
    assert [kind for kind, _ in sys.modules["ftk_watch"].SEEN].count("step") == 1
    assert [record.getMessage() for record in caplog.records if "observer" in record.getMessage()]
    assert "the tracker is gone" in caplog.text


BREAKER = """
from typing import Literal
from ftk import Options, Variant, hookimpl
from ftk.parts import Mitigation

class BreakerOptions(Options):
    station: str = "begin"

def build(options):
    def fail(self, *arguments):
        raise ZeroDivisionError("what a pity")
    return type("Breaker", (Mitigation,), {options.station: fail})()

@hookimpl
def ftk_mitigations():
    return [Variant(name="breaker", summary="Breaks.", options="ftk_break:BreakerOptions", build="ftk_break:build")]
"""


@pytest.mark.parametrize(
    "station",
    [
        "remember",
        "begin",
        "sources",
        "penalty",
        "read_gradients",
        "edit_gradients",
        "after_step",
        "finish",
        "report",
        "state_dict",
    ],
)
def test_a_mitigation_that_breaks_is_named(station: str, here: Path, add_plugin: Callable[[str, str], None]) -> None:
    add_plugin("ftk-break", BREAKER)
    retained = f'{ONE_STAGE}retain = {{ {FACTS}, relations = "iso_code", limit = 4 }}\n'
    broken = f"mitigation=[{{ use = 'breaker', name = 'mine', station = '{station}' }}]"
    arguments = ["run", str(written(here, retained)), "--set", broken, "--set", "training.steps=1"]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 1, result.output
    said = f"error: mitigation `mine` failed in its station `{station}`: ZeroDivisionError: what a pity\n"
    assert result.stderr == said
    assert events_of(here / "runs" / "small", "run_finished")[0]["status"] == "failed"


def shown(terminal: bool, here: Path, text: str, *overrides: str, output: str | None = None) -> str:
    """What a run shows on a console."""
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100, soft_wrap=not terminal)
    display = ProgressDisplay(console)
    ftk.run(written(here, text), output=output, overrides=overrides, observers=[display])
    display.close()
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_a_terminal_shows_a_bar(here: Path) -> None:
    text = shown(True, here, ONE_STAGE, "training.steps=60")
    assert "\x1b[?25l" in text, "the cursor is hidden while the bar is shown"
    assert "\x1b[?25h" in text, "and comes back"
    assert re.search(r"stage 1 .*\d+/60", text)
    assert "step      1/60" not in text


def test_a_bar_stays_within_its_terminal() -> None:
    """Full numbers where there is room, fewer where not; work that cannot be counted has no count."""
    data = {"stage": 1, "step": 700, "steps": 90_000, "loss": 2.1326, "learning_rate": 4.2e-5, "tokens_per_second": 1e6}
    shown = {}
    for width in (40, 60, 80, 120):
        console = Console(file=io.StringIO(), force_terminal=True, width=width)
        display = ProgressDisplay(console)
        display(RunEvent("run_started", {"name": "small", "device": "cpu", "folder": "runs/small", "tasks": []}))
        display(RunEvent("phase", {"text": "reading data"}))
        display(RunEvent("step", data))
        display.close()
        shown[width] = console.file.getvalue()  # type: ignore[attr-defined]
        assert "…" not in shown[width]
        assert "0/?" not in shown[width]
    assert [text for text in ("loss 2.1326", "lr 4.2e-05", "1,000,000 tokens/s") if text in shown[120]] != []
    assert "loss" not in shown[40]
    assert "loss 2.1326" in shown[60]
    assert "lr" not in shown[60]


def test_a_log_has_plain_lines_and_not_too_many(here: Path) -> None:
    """Ten reports of loss a stage, however many steps; what stands in brackets is not taken for markup."""
    text = shown(False, here, ONE_STAGE, "training.steps=40", output="[dim]" + "x" * 200)
    lines = text.splitlines()
    assert "\x1b" not in text
    assert lines[0] == "small on cpu → [dim]" + "x" * 200
    steps = [line for line in lines if line.startswith("  step ")]
    assert 10 <= len(steps) <= 11
    assert steps[-1].startswith("  step     40/40  loss ")


def test_the_test_rows_in_training_are_told_of(here: Path) -> None:
    mixed = ONE_STAGE.replace('overlap = "allow"', f'test = {{ {FACTS}, relations = "capital", limit = 8 }}')
    text = shown(False, here, mixed, "training.steps=1")
    said = "warning: data.test: 6 of 8 rows stand in the training data of `small` too; scores on them measure memory"
    assert said in text.splitlines()
