"""Runs every method on every stream and writes the tables of ``docs/results.md`` and ``docs/reference.md``.

``python -m tests.results FOLDER`` keeps the runs in FOLDER and goes on where it was stopped. ``--stream NAME``,
``--method NAME`` and ``--seeds N,N`` take a part of it; ``--page`` writes the pages from what is there.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ftk.comparing.comparison import compare
from ftk.comparing.runs import FinishedRun, read_run
from ftk.errors import UserError
from tests.results import one
from tests.results.methods import Method
from tests.results.page import folder_of, write_pages
from tests.results.streams import STREAMS, Stream

TUNING_SEED = 100
"""Of the runs that choose a strength, on validation rows; none of the table's."""


def launch(asked: dict[str, Any], apart: bool) -> int:
    """Run what is asked, ``apart`` in a process of its own so that its memory is its own; its exit code."""
    if not apart:
        return one.main(asked)
    return subprocess.run([sys.executable, "-m", "tests.results.one", json.dumps(asked)]).returncode


class Runs:
    """The runs of one method on one stream, made where they are not there yet."""

    def __init__(self, stream: Stream, method: Method, folder: Path) -> None:
        self.stream, self.method = stream, method
        self.folder = folder_of(folder, stream, method)

    def settings(self, more: Sequence[str] = ()) -> list[str]:
        """All changes to the stream's recipe; ``more`` are of the mitigation, addressed by its name."""
        stream, method = self.stream, self.method
        at = f"stage.{stream.later}." if stream.later and not method.from_the_start else ""
        made = [*stream.settings, *(stream.full if method.full else ())]
        if stream.later:
            made.append(f"stage.{stream.later}.mitigation=[]")
        if method.joint:
            return [*made, "mitigation=[]"]
        adaptation, mitigation = method.settings["adaptation"], method.settings["mitigation"]
        made += [f"{f'stage.{stream.later}.' if stream.later else ''}adaptation={adaptation}"]
        if method.from_the_start and stream.later:
            made.append(f"stage.{stream.later}.mitigation={mitigation}")
        made.append(f"{at}mitigation={mitigation}")
        made += [f"{at}{change}" for change in more]
        if method.from_the_start and stream.later:
            made += [f"stage.{stream.later}.{change}" for change in more]
        return made

    def tuned(self) -> tuple[str, ...]:
        """The strength of the grid that scores best on average on validation rows, by one seed; a longer grid anew."""
        if len(self.method.grid) < 2:
            return tuple(self.method.grid)
        kept = self.folder / "chosen.json"
        known = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {"chosen": None, "found": {}}
        if set(known["found"]) != set(self.method.grid):
            found = {}
            for number, change in enumerate(self.method.grid):
                run = self._run(self.folder / f"tuning-{number}", [change], TUNING_SEED, choosing=True)
                found[change] = _average(run, self.stream)
            best = [max(found, key=lambda change: found[change])]
            if best != known["chosen"]:
                for run_folder in self.folder.glob("seed-*"):
                    shutil.rmtree(run_folder)  # of another strength
            known = {"chosen": best, "found": found}
            kept.write_text(json.dumps(known), encoding="utf-8")
        return tuple(known["chosen"])

    def seeded(self, seed: int) -> FinishedRun:
        """The run with a seed."""
        return self._run(self.folder / f"seed-{seed}", self.tuned(), seed, choosing=False)

    def _run(self, folder: Path, more: Sequence[str], seed: int, *, choosing: bool) -> FinishedRun:
        try:
            return read_run(folder)
        except UserError:
            pass
        asked: dict[str, Any] = {
            "recipe": str(self.stream.recipe), "settings": self.settings(more), "seed": seed, "folder": str(folder),
            "joint": self.method.joint, "choosing": choosing,
        }  # fmt: skip
        if code := launch(asked, apart=self.stream.published is None):
            raise SystemExit(f"{self.stream.name}, {self.method.name}, seed {seed}: exit code {code}")
        run = read_run(folder)
        for name in ("model", "stages", "checkpoints"):
            shutil.rmtree(folder / name, ignore_errors=True)
        return run


def _average(run: FinishedRun, stream: Stream) -> float:
    found = compare([run], metric=stream.metric)
    average = found.rows[0].measures["average"]
    value = float("-inf") if average is None else average.value
    return value if found.higher_is_better else -value


def main(arguments: Sequence[str]) -> int:
    """Run what is asked for, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.results", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--stream", choices=STREAMS, action="append")
    known = sorted({method.name for stream in STREAMS.values() for method in stream.methods})
    parser.add_argument("--method", choices=known, action="append", metavar="NAME")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--page", action="store_true", help="write the pages from what is there, and run nothing")
    parser.add_argument("--timed", action="store_true", help="tell seconds too: nothing else ran beside these runs")
    asked = parser.parse_args(arguments)
    seeds = [int(seed) for seed in asked.seeds.split(",")]
    for stream in [STREAMS[name] for name in asked.stream or STREAMS]:
        methods = [method for method in stream.methods if asked.method is None or method.name in asked.method]
        for seed in [] if asked.page else seeds:
            for method in methods:
                run = Runs(stream, method, asked.folder).seeded(seed)
                average = compare([run], metric=stream.metric).rows[0].measures["average"]
                told = "–" if average is None else f"{average.value:.3f}"
                print(f"{stream.name}, {method.name}, seed {seed}: average {told}", flush=True)
    write_pages(asked.folder, timed=asked.timed)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
