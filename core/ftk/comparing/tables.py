"""Tables of compared runs as text, Markdown, LaTeX and CSV, each escaped for its reader."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftk.comparing.comparison import COSTS, Comparison, Row
from ftk.comparing.intervals import Estimate
from ftk.comparing.plotted import Plotted, plot
from ftk.comparing.quality import MEASURES
from ftk.errors import visible
from ftk.report.rows import number, percent

FORMATS = ("text", "markdown", "latex", "csv")


@dataclass(frozen=True)
class Table:
    """Cells as text; the first column names the runs, the others hold numbers."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def fitted(self, width: int, gap: int = 2) -> list[Table]:
        """Tables below each other that fit a width, as far as can be; each begins with the first column."""
        sizes = [max(len(line[at]) for line in (self.columns, *self.rows)) + gap for at in range(len(self.columns))]
        pieces: list[list[int]] = [[0]]
        for at in range(1, len(sizes)):
            if len(pieces[-1]) > 1 and sum(sizes[column] for column in pieces[-1]) + sizes[at] > width:
                pieces.append([0])
            pieces[-1].append(at)
        return [
            Table(tuple(self.columns[at] for at in piece), tuple(tuple(row[at] for at in piece) for row in self.rows))
            for piece in pieces
        ]


def score_table(comparison: Comparison) -> Table:
    """What was learned and what was kept; each beside its difference to the first row."""
    arrow = "" if comparison.higher_is_better else " ↓"
    several = len(comparison.rows) > 1
    columns = ["run", "seeds", f"target{arrow}", "retention", f"average{arrow}", "forgetting"]
    if several:
        columns[3:3], columns[5:5] = ["Δ target"], ["Δ retention"]
    rows = []
    for index, row in enumerate(comparison.rows):
        cells = [row.label, _seeds(row)]
        for name in MEASURES:
            share = name == "retention"
            cells.append(estimate(row.measures[name], share))
            if several and name in ("target", "retention"):
                cells.append(estimate(row.differences[name], share, signed=True) if index else "")
        rows.append(tuple(cells))
    return Table(tuple(columns), tuple(rows))


def cost_table(comparison: Comparison) -> Table:
    """What each took."""
    rows = [
        (
            row.label, f"{row.costs['seconds']:,.1f}", f"{row.costs['tokens']:,.0f}", f"{row.costs['flops']:.2e}",
            f"{row.costs['memory_bytes'] / 2**30:.2f} GiB", _energy(row.costs["watt_hours"]),
        )
        for row in comparison.rows
    ]  # fmt: skip
    return Table(("run", "seconds", "tokens", "FLOPs", "memory", "energy"), tuple(rows))


def notes(comparison: Comparison) -> list[str]:
    """What a reader must know of the numbers."""
    first = comparison.rows[0]
    told = [f"target, average and forgetting: {comparison.metric}; retention: mean over tasks, each by its own metric"]
    if len(comparison.rows) > 1:
        told.append(f"Δ: difference to {first.label}, of retention in points of a percent")
    several = any(len(row.runs) > 1 for row in comparison.rows)
    alone = any(len(row.runs) == 1 for row in comparison.rows)
    if several:
        told.append("± : 95% interval of the mean over seeds (Student's t)")
    if alone:
        told.append("[ ]: 95% interval over test rows (bootstrap; of differences in pairs)")
    if any(row.joint for row in comparison.rows):
        told.append(f"a joint run learned all tasks at once; what it kept is held against the best of {first.label}")
    watts = ", ".join(f"{watts:g} W" for watts in sorted({row.watts for row in comparison.rows}))
    told.append("FLOPs: 4 a parameter and token, 2 more for a trained one; seconds: steps and what mitigations prepare")
    told.append(f"energy: seconds × {watts}, assumed; --watts sets it")
    return told


def markdown(comparison: Comparison) -> str:
    """Two tables and the notes, for a README."""
    parts = []
    for table in (score_table(comparison), cost_table(comparison)):
        lines = [table.columns, ("---", *("--:" for _ in table.columns[1:])), *table.rows]
        escaped = [lines[0], lines[1], *([tuple(_markdown(cell) for cell in row) for row in lines[2:]])]
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in escaped))
    parts.append("\n".join(f"- {_markdown(note)}" for note in notes(comparison)))
    return "\n\n".join(parts) + "\n"


def latex(comparison: Comparison) -> str:
    """Two ``tabular``s for a document that uses ``booktabs``, and the notes as comments."""
    parts = ["\n".join(f"% {visible(note)}" for note in notes(comparison))]
    for table in (score_table(comparison), cost_table(comparison)):
        body = [" & ".join(_latex(cell) for cell in row) + r" \\" for row in (table.columns, *table.rows)]
        lines = [rf"\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}", r"\toprule", body[0], r"\midrule",
                 *body[1:], r"\bottomrule", r"\end{tabular}"]  # fmt: skip
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def as_csv(comparison: Comparison) -> str:
    """One table of plain numbers: a line a row, intervals in columns of their own."""
    ends = ("", "_low", "_high", "_difference", "_difference_low", "_difference_high")
    written = io.StringIO()
    out = csv.writer(written, lineterminator="\n")
    out.writerow(["run", "seeds", "metric", *(f"{name}{end}" for name in MEASURES for end in ends), *COSTS, "watts"])
    for row in comparison.rows:
        numbers: list[object] = []
        for name in MEASURES:
            for found in (row.measures[name], row.differences[name]):
                low, high = (found.interval if found else None) or ("", "")
                numbers += [found.value if found else "", low, high]
        seeds = " ".join(map(str, row.seeds))
        costs = [row.costs[name] for name in COSTS]
        out.writerow([_plain(row.label), seeds, _plain(comparison.metric), *numbers, *costs, row.watts])
    return written.getvalue()


def estimate(found: Estimate | None, share: bool, signed: bool = False) -> str:
    """A number with its interval, as ``0.985 ± 0.012`` over seeds or ``0.98 [0.94, 1.00]`` over rows."""
    if found is None:
        return "–"

    def shown(value: float) -> str:
        text = percent(value) if share else number(value)
        if signed and share:
            text = f"{100 * value:.1f}"
        return (f"+{text}" if value >= 0 else f"−{text.removeprefix('-')}") if signed else text

    if found.over_seeds is not None:
        half = found.over_seeds[1] - found.value
        return f"{shown(found.value)} ± {f'{100 * half:.1f}' if share else number(half)}"
    if found.over_rows is not None:
        return f"{shown(found.value)} [{', '.join(shown(end) for end in found.over_rows)}]"
    return shown(found.value)


def _seeds(row: Row) -> str:
    return ", ".join(map(str, row.seeds)) if len(row.seeds) <= 5 else f"{len(row.seeds)} seeds"


def _energy(watt_hours: float) -> str:
    return f"{watt_hours / 1000:.2f} kWh" if watt_hours >= 1000 else f"{watt_hours:.2f} Wh"


def _markdown(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>#|~&])", r"\\\1", " ".join(visible(text).split()))


_LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "−": "$-$",
    "–": "--", "↓": r"$\downarrow$", "Δ": r"$\Delta$", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}  # fmt: skip


def _latex(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in " ".join(visible(text).split()))


def _plain(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    text = visible(text)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def points(name: str, comparison: Comparison, folder: Path) -> dict[str, Any]:
    """The content of ``points.json``, from which the page of the runs in ``folder`` is drawn; see docs/report.md."""
    found = [
        Plotted(
            row.label, "upper bound" if row.joint else "variants", row.measures["target"], row.measures["retention"],
            os.path.relpath(row.runs[0].path, folder),
        )
        for row in comparison.rows
    ]  # fmt: skip
    return plot(name, comparison.higher_is_better, found)


def texts(comparison: Comparison) -> Sequence[Table]:
    """The tables as text."""
    return score_table(comparison), cost_table(comparison)
