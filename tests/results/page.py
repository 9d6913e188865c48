"""Writes the tables of ``docs/results.md`` and ``docs/reference.md`` from the runs in a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from ftk.comparing.comparison import compare
from ftk.comparing.intervals import Estimate
from ftk.comparing.runs import FinishedRun, read_run
from ftk.errors import UserError
from tests.results import promises
from tests.results.methods import Method
from tests.results.streams import ROOT, STREAMS, Stream

DOCS = ROOT / "docs"
MEASURED = ("average", "target", "forgetting", "retention")
COLUMNS = ("method", "average", "learned", "forgetting", "retention")
NOTHING = "Not measured yet."


def folder_of(folder: Path, stream: Stream, method: Method) -> Path:
    """Where the runs of a method on a stream are."""
    return folder / stream.name / method.name.replace(", ", "-").replace(" ", "-").replace("%", "")


def runs_of(folder: Path) -> list[FinishedRun]:
    """The runs of the table in the folder of a method."""
    found = []
    for path in sorted(folder.glob("seed-*")):
        try:
            found.append(read_run(path))
        except UserError:
            continue  # not done yet
    return found


def table(folder: Path, stream: Stream, timed: bool = False) -> list[str]:
    """The lines of a stream's table, a line for each method that has a run; and what was chosen beforehand.

    Seconds are told where the runs were ``timed``: made while nothing else ran.
    """
    runs = {method.name: runs_of(folder_of(folder, stream, method)) for method in stream.methods}
    there = [method for method in stream.methods if runs[method.name]]
    if not there:
        return [NOTHING]
    ordered = sorted(there, key=lambda method: method.joint)  # a joint run is held against the others
    labels = {runs[method.name][0].recipe_key: method.name for method in ordered}
    found = compare([run for method in ordered for run in runs[method.name]], metric=stream.metric, labels=labels)
    rows = {row.label: row for row in found.rows}
    first = compare([runs[method.name][0] for method in ordered], metric=stream.metric, labels=labels)
    costs = {row.label: row.costs for row in first.rows}
    plain = {full: next((m.name for m in there if m.full == full and not m.mitigations), None)
             for full in (False, True)}  # fmt: skip
    columns = (*COLUMNS, *(("seconds", "memory") if stream.published is None else ("published",)))
    lines = [f"| {' | '.join(columns)} |", f"|---|{'--:|' * (len(columns) - 1)}"]
    for method in there:
        row = rows[method.name]
        base = plain[method.full]
        chosen = folder_of(folder, stream, method) / "chosen.json"
        told = f" ({_chosen(chosen)})" if chosen.is_file() else ""
        measures = {"average": row.measures["average"]} if method.joint else row.measures
        cells = [f"{method.name}{told}", *(_told(measures.get(name), name == "retention") for name in MEASURED)]
        if stream.published is None:
            beside = None if base is None or method.joint else runs[base][0]
            times = _times(costs[method.name], None if base is None else costs[base]) if timed else "–"
            cells += [times, _more(runs[method.name][0], beside)]
        else:
            cells.append(_published(stream, method))
        lines.append(f"| {' | '.join(cells)} |")
    if stream.published is not None:
        for method in stream.methods:
            if method not in there:
                lines.append(f"| {method.name} | not measured yet | – | – | – | {_published(stream, method)} |")
    seeds = sorted({run.seed for each in runs.values() for run in each})
    held = promises.lines([run for each in runs.values() for run in each], stream.metric)
    return [
        *lines, "", f"Seeds {', '.join(map(str, seeds))}; ± is half of a 95% interval of the mean over them.",
        *(["", *held] if held else ()),
    ]  # fmt: skip


def _published(stream: Stream, method: Method) -> str:
    score = (stream.published or {}).get(method.name)
    return "–" if score is None else f"{score:.3g}"


def _told(found: Estimate | None, share: bool) -> str:
    if found is None:
        return "–"
    scale, digits = (100, 1) if share else (1, 3)
    half = "" if found.over_seeds is None else f" ± {(found.over_seeds[1] - found.value) * scale:.{digits}f}"
    value = round(found.value * scale, digits) + 0.0  # no negative zero
    return f"{value:.{digits}f}".replace("-", "−") + f"{'%' if share else ''}{half}"


def _times(costs: Mapping[str, float], base: Mapping[str, float] | None) -> str:
    return "–" if base is None or not base["seconds"] else f"{costs['seconds'] / base['seconds']:.2f}×"


def _more(run: FinishedRun, base: FinishedRun | None) -> str:
    """What the stages after the first hold at their peak beyond those of ``base``."""
    if base is None:
        return "–"
    peaks = [max(stage["peak_memory_bytes"] for stage in each.report["stages"][1:]) for each in (run, base)]
    return f"{(peaks[0] - peaks[1]) / 2**20:+,.0f} MiB".replace("-", "−")


def _chosen(path: Path) -> str:
    key, _, value = json.loads(path.read_text(encoding="utf-8"))["chosen"][0].partition("=")
    return f"{key.rpartition('.')[2]} {value}"


def write_pages(folder: Path, docs: Path = DOCS, timed: bool = False) -> None:
    """Put the tables between their marks into the pages; what has no run in the folder stays as it stands."""
    for stream in STREAMS.values():
        lines = table(folder, stream, timed)
        if lines == [NOTHING]:
            continue
        page = docs / stream.page
        begin, end = (f"<!-- {stream.name}: {word} -->\n" for word in ("the table begins", "the table ends"))
        before, _, rest = page.read_text(encoding="utf-8").partition(begin)
        _, _, after = rest.partition(end)
        page.write_text(before + begin + "\n".join(lines) + "\n" + end + after, encoding="utf-8")
