"""The page of a run or of a comparison: one file without scripts that needs nothing else, and its charts as files."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ftk.errors import UserError, visible
from ftk.files import write_text
from ftk.pictures.charts import HALF
from ftk.pictures.gallery import Chart, Column, charts_of, charts_of_comparison
from ftk.pictures.paint import DARK, LIGHT, css, file_png, file_svg, page_svg, style
from ftk.pictures.paint import PAGE as PAINT
from ftk.pictures.points import Comparison, read_comparison
from ftk.pictures.reading import POINTS, Story, read_story
from ftk.plugin.registry import own_version
from ftk.report.rows import number, percent, said_of, score_rows
from ftk.report.samples import Answers, compared_answers

PAGE = "report.html"
"""The page's name in the folder."""

FACTS_SHOWN = 4000
"""Characters of what a mitigation reports of itself; report.json has all."""


@dataclass(frozen=True)
class Sheet:
    """A table of the page that belongs to no chart."""

    columns: list[Column]
    rows: list[list[str]]


def write_page(folder: Path) -> Path:
    """Write ``report.html`` into the folder of a run, or of a comparison (one that holds ``points.json``).

    Raises:
        UserError: the folder holds neither, or a file of it cannot be read.
    """
    write_text(folder / PAGE, page_of(folder), alone=False)  # a run that ends and `ftk report` may write it at once
    return folder / PAGE


def page_of(folder: Path) -> str:
    """The page as text; see :func:`write_page`."""
    described, charts = _read(folder)
    with style(PAINT):
        sections = {
            name: [_drawn(chart) for chart in group] for name, group in groupby(charts, lambda chart: chart.section)
        }
    # A table that several charts share stands under the last of them.
    for drawn in sections.values():
        for one, following in pairwise(drawn):
            if one["rows"] == following["rows"]:
                one["rows"] = []
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, finalize=_shown,
    )  # fmt: skip
    page = environment.get_template("page.html.j2")
    return page.render(light=Markup(css(LIGHT)), dark=Markup(css(DARK)), sections=sections, **described)


def write_figures(folder: Path, target: Path) -> list[Path]:
    """Write every chart of the page into ``target``, as SVG and as PNG.

    Raises:
        UserError: as :func:`write_page`; or ``target`` is no folder, or there is nothing to draw.
    """
    if target.exists() and not target.is_dir():
        raise UserError(f"{target}: is a file", "name a folder for the figures")
    _, charts = _read(folder)
    if not charts:
        raise UserError(f"{folder}: there is nothing to draw yet", "wait until some steps are logged")
    target.mkdir(parents=True, exist_ok=True)
    written = []
    with style(LIGHT):
        for chart in charts:
            for suffix, content in (("svg", file_svg(chart.draw)), ("png", file_png(chart.draw))):
                written.append(target / f"{chart.key}.{suffix}")
                written[-1].write_bytes(content)
    return written


def _read(folder: Path) -> tuple[dict[str, Any], list[Chart]]:
    """What the page says beside its charts, and these."""
    if (folder / POINTS).is_file() and not (folder / "recipe.resolved.json").is_file():
        comparison = read_comparison(folder)
        return _of_comparison(comparison, folder), list(charts_of_comparison(comparison))
    story = read_story(folder)
    try:
        return _of_run(story), list(charts_of(story))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise UserError(f"{folder}: its files are not a run's ({type(error).__name__}: {error})") from error


def _of_run(story: Story) -> dict[str, Any]:
    scores = [] if story.scores is None else score_rows(story.scores)
    began = "" if story.began is None else f"{datetime.fromtimestamp(story.began, UTC):%Y-%m-%d %H:%M} UTC"
    head = {
        "started": began, "device": story.device,
        "seed": str(story.resolved["recipe"].get("seed", "")), "recipe": str(story.resolved.get("sha256", ""))[:12],
        "ftk": str(story.environment.get("ftk", own_version())),
    }  # fmt: skip
    columns = [Column("task", False), Column("metric", False), *map(Column, ("start", "learned", "end", "kept"))]
    rows = [
        [
            row.task, f"{row.metric}{'@' + row.probe if row.probe else ''}{'' if row.higher_is_better else ' ↓'}",
            number(row.start), number(row.learned), number(row.end), percent(row.retention),
        ]
        for row in scores
    ]  # fmt: skip
    return {
        "name": story.name, "kind": "run", "status": story.status, "head": {k: v for k, v in head.items() if v},
        "said": said_of(scores),
        "progress": "" if story.status == "completed" else _progress(story), "summary": Sheet(columns, rows),
        "averages": _averages(story), "answers": _answers(story), "cost": _cost(story),
        "mitigations": list(_mitigations(story)), "recipe": story.recipe, "environment": _flat(story.environment),
        "warnings": story.warnings, "runs": [],
    }  # fmt: skip


def _of_comparison(comparison: Comparison, folder: Path) -> dict[str, Any]:
    pages = [point for point in comparison.points if _inside(point.run) and (folder / point.run / PAGE).is_file()]
    runs = [(point.label, f"{quote(point.run)}/{PAGE}") for point in pages]
    return {
        "name": comparison.name, "kind": "comparison", "status": "", "head": {"ftk": own_version()}, "said": {},
        "progress": "" if comparison.drawn() else "No variant has been measured in both yet.",
        "summary": Sheet([], []), "averages": Sheet([], []), "answers": [], "cost": Sheet([], []), "mitigations": [],
        "recipe": "", "environment": [], "warnings": (), "runs": runs,
    }  # fmt: skip


def _inside(run: str) -> bool:
    """Whether a folder lies in that of the comparison; a link leads nowhere else."""
    return bool(run) and not run.startswith(("/", "\\")) and ".." not in Path(run).parts and ":" not in run


def _progress(story: Story) -> str:
    """How far a run has come that is not complete."""
    begun = [stage for stage in story.stages if stage.name]
    if not begun:
        return "No stage has begun yet."
    stage = begun[-1]
    if stage.facts:
        return f"Stage {stage.name} has finished; {len(begun)} begun so far."
    return f"Stage {stage.name} is at step {stage.length:,} of {stage.planned:,}; what follows is not measured yet."


def _averages(story: Story) -> Sheet:
    summary = story.report["summary"] if story.report else {}
    metrics = [metric for metric in summary if "@" not in metric]
    keys = list(dict.fromkeys(key for metric in metrics for key in summary[metric]))
    rows = [[metric, *(_cell(summary[metric].get(key)) for key in keys)] for metric in metrics]
    return Sheet([Column("metric", False), *(Column(key.replace("_", " ")) for key in keys)], rows)


def _cell(value: Any) -> str:
    return number(value) if value is None or isinstance(value, int | float) else str(value)


def _answers(story: Story) -> list[tuple[str, list[str], list[Answers]]]:
    """By evaluator and task the models that were asked, and their answers."""
    found: list[tuple[str, list[str], list[Answers]]] = []
    for answers in compared_answers(story.report) if story.report else ():
        title = f"{answers.name} of {answers.task}"
        if not found or found[-1][0] != title:
            found.append((title, list(answers.given), []))
        found[-1][2].append(answers)
    return found


def _cost(story: Story) -> Sheet:
    done = [stage.facts for stage in story.stages if stage.facts]
    spent = [math.fsum(told.get("seconds", 0.0) for told in facts["mitigations"].values()) for facts in done]
    rows = [
        [
            facts["name"], facts["adaptation"], f"{facts['steps']:,}", f"{facts['tokens']:,}",
            f"{facts['seconds']:,.1f}", f"{own:,.1f}", f"{facts['tokens_per_second']:,.0f}",
            _memory(facts["peak_memory_bytes"]), f"{facts['trainable_parameters']:,}", f"{facts['total_parameters']:,}",
        ]
        for facts, own in zip(done, spent, strict=True)
    ]  # fmt: skip
    if len(done) > 1:
        steps, tokens, seconds = (sum(facts[key] for facts in done) for key in ("steps", "tokens", "seconds"))
        peak = _memory(max(facts["peak_memory_bytes"] or 0 for facts in done))
        speed = tokens / max(seconds, 1e-9)
        rows.append(
            [
                "all",
                "",
                f"{steps:,}",
                f"{tokens:,}",
                f"{seconds:,.1f}",
                f"{sum(spent):,.1f}",
                f"{speed:,.0f}",
                peak,
                "",
                "",
            ]
        )
    headings = ("steps", "tokens", "seconds", "by mitigations", "tokens/s", "peak memory", "trained", "parameters")
    return Sheet([Column("stage", False), Column("adaptation", False), *map(Column, headings)] if rows else [], rows)


def _memory(count: Any) -> str:
    return f"{count / 2**20:,.0f} MiB" if isinstance(count, int) and count else "–"


def _mitigations(story: Story) -> Iterator[tuple[str, str, str]]:
    """What each mitigation reports of itself: the stage, its name, the rest as text."""
    for stage in story.stages:
        for name, told in (stage.facts or {}).get("mitigations", {}).items():
            text = json.dumps(told, indent=2, ensure_ascii=False)
            yield stage.name, name, text if len(text) <= FACTS_SHOWN else f"{text[:FACTS_SHOWN]}\n… see report.json"


def _flat(table: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for key, value in table.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{key} ")
        else:
            text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
            found.append((f"{prefix}{key}", text))
    return found


def _drawn(chart: Chart) -> dict[str, Any]:
    picture = page_svg(chart.draw, chart.key, f"{chart.title}. {chart.note} Its numbers are in the table below.")
    return {
        "title": chart.title, "group": chart.key.rpartition("-")[2], "note": chart.note, "columns": chart.columns,
        "rows": chart.rows, "picture": Markup(picture), "wide": _width(picture) > HALF * 96 + 1,
    }  # fmt: skip


def _width(picture: str) -> int:
    """In CSS pixels."""
    found = re.search(r"width: ([0-9]+)px", picture)
    return int(found[1]) if found else 0


def _shown(value: Any) -> Any:
    """What a template writes: text with what would turn or break a line written out, before it is escaped."""
    return value if isinstance(value, Markup) or not isinstance(value, str) else visible(value)
