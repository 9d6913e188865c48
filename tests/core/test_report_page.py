"""The page of a run: what it says, that text stays text, and what is refused; `ftk report` and its figures."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
import pytest
from PIL import Image

from ftk.pictures.page import PAGE, page_of
from tests.core.command import ftk_
from tests.core.pictured import write_run

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)> ${7*7} {{ 7*7 }} $x^2$ "
HOSTILE += "\u202egnol\u2028\x00\x1b[31m\\"


class Page(HTMLParser):
    """The elements, attributes and texts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_a_page_says_what_was_learned_and_lost_and_has_every_chart(tmp_path: Path) -> None:
    page = Page(page_of(write_run(tmp_path / "run")))
    told = " ".join(page.texts)
    assert "capitals 0.100 → 0.800, currencies 0.050 → 0.900" in told
    assert "capitals 0.800 → 0.600 (75.0% kept)" in told
    titles = [
        text
        for text in page.texts
        if re.match(r"(Scores over|What was|Score matrix|Loss|How far|Where|What ear)", text)
    ]
    assert [title.partition(":")[0] for title in titles] == [
        "What was learned, and what was lost", *["Scores over the run", "What was kept", "Score matrix"] * 2,
        "Loss and learning rate",
        *["How far weights moved", "What earlier tasks depend on", "Where old and new compete"] * 2,
    ]  # fmt: skip
    pictures = [attributes for tag, attributes in page.elements if tag == "svg"]
    assert len(pictures) == 6 + 1 + 2 * 3 + 2 * 2  # in each stage the course of the mitigation, by two keys
    assert all(picture["role"] == "img" and picture["aria-label"] for picture in pictures)
    assert "Paris2" in told  # the answers of all models
    assert "256 MiB" in told


def test_its_tables_hold_the_numbers_of_the_report(tmp_path: Path) -> None:
    text = page_of(write_run(tmp_path / "run"))
    rows = [re.sub("<[^>]*>", "|", row) for row in re.findall(r"<tr>(.*?)</tr>", text)]
    cells = [[cell for cell in row.split("|") if cell] for row in rows]
    assert ["capitals", "accuracy", "0.100", "0.800", "0.600", "75.0%"] in cells
    assert ["capitals", "perplexity ↓", "100.00", "2.00", "4.00", "50.0%"] in cells
    assert ["after currencies", "0.600", "0.900"] in cells
    assert ["all", "40", "800", "4.0", "1.0", "200", "256 MiB"] in cells
    weight = "model.layers.2.mlp.up_proj.weight"
    assert [weight, "6.50", "65.0 %", "1e-5", "33.3 %"] in cells
    assert ["10", "1.00"] in cells  # a mitigation's course
    assert ["10", "0.75", "0.75"] in cells


@pytest.mark.parametrize("status", ["completed", "interrupted"])
def test_hostile_text_stays_text(tmp_path: Path, status: str) -> None:
    names = ("<b onclick='x'>one", "$two$ \u202e \u2028")
    page = Page(page_of(write_run(tmp_path / "run", names, HOSTILE, status)))
    assert not {tag for tag, _ in page.elements} & {"script", "img", "b onclick", "iframe", "object", "link", "base"}
    allowed = {"class", "style", "d", "id", "transform", "x", "y", "role", "aria-label", "scope", "lang", "charset",
               "http-equiv", "content", "name", "viewbox", "version", "xmlns", "xmlns:xlink", "xlink:href", "clip-path",
               "width", "height", "open"}  # fmt: skip
    assert {name for _, attributes in page.elements for name in attributes} <= allowed
    assert all(a["xlink:href"].startswith("#") for _, a in page.elements if a.get("xlink:href"))
    told = "".join(page.texts)
    assert "<script>alert(1)</script>" in told
    assert "{{ 7*7 }}" in told
    assert "$x^2$" in told
    assert "\\u202e" in told
    assert not set("\u202e\u2028\x00\x1b") & set(told)


def test_it_asks_for_nothing_and_allows_nothing(tmp_path: Path) -> None:
    text = page_of(write_run(tmp_path / "run"))
    [policy] = [a["content"] for tag, a in Page(text).elements if tag == "meta" and a.get("http-equiv")]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    assert not re.search(r"(?:src|href)=\"(?!#)|url\((?!#)|@import|<script", text)
    ids = re.findall(r'\bid="([^"]*)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:xlink:href="|url\()#([^")]+)', text)) <= set(ids)


def test_a_run_that_was_stopped_has_a_page_too(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", status="interrupted")
    told = " ".join(Page(page_of(run)).texts)
    assert "interrupted" in told
    assert "Stage currencies is at step 7 of 20" in told
    (run / "report.json").unlink()
    told = " ".join(Page(page_of(run)).texts)
    assert "Loss and learning rate" in told
    assert "Score matrix" not in told
    (run / "events.jsonl").unlink()
    assert "No stage has begun yet" in page_of(run)


def test_steps_done_again_after_a_resume_count_once(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", status="interrupted")
    again = [
        {"kind": "run_started"},
        {"kind": "stage_started", "stage": 2, "name": "currencies", "steps": 20, "first_step": 5},
    ]
    again.append({"kind": "step", "stage": 2, "step": 6, "loss": 0.125, "learning_rate": 0.5})
    with (run / "events.jsonl").open("a") as log:
        log.write("\n" + "".join(json.dumps(event) + "\n" for event in again))
    told = page_of(run)
    assert "Stage currencies is at step 6 of 20" in told
    assert "0.1250" in told


def test_a_comparison_has_its_plot_and_links_to_its_runs(tmp_path: Path) -> None:
    points = [
        {"label": HOSTILE, "x": 0.9, "y": 0.5, "x_interval": [0.85, 0.95], "run": "a b#?"},
        {"label": "worse", "x": 0.8, "y": 0.4, "run": "../elsewhere"},
        {"label": "without a page", "x": 0.7, "y": 0.6, "run": "none"},
        {"label": "unmeasured", "x": None, "y": 0.4, "run": "javascript:alert(1)"},
    ]
    table = {"schema": 1, "name": HOSTILE, "x": {"label": "accuracy", "higher_is_better": True}}
    table |= {"y": {"label": "loss", "higher_is_better": False}, "points": points}
    folder = tmp_path / "series"
    for run in ("series/a b#?", "elsewhere"):
        (tmp_path / run).mkdir(parents=True)
        (tmp_path / run / PAGE).touch()
    (folder / "points.json").write_text(json.dumps(table))
    page = Page(page_of(folder))
    assert [attributes["href"] for tag, attributes in page.elements if tag == "a"] == [f"a%20b%23%3F/{PAGE}"]
    told = " ".join(page.texts)
    assert "0.900 (0.850 to 0.950)" in told
    assert "unmeasured" in told
    assert "loss (less is better)" in told
    assert not {tag for tag, _ in page.elements} & {"script", "img"}


def test_the_command_writes_page_and_figures_without_torch(tmp_path: Path) -> None:
    points = [{"label": f"{HOSTILE}\n{number}", "x": number, "y": 0.5} for number in range(2)]
    axis = {"label": HOSTILE, "higher_is_better": True}
    (tmp_path / "points.json").write_text(json.dumps({"name": "n", "x": axis, "y": axis, "points": points}))
    code = (
        "import sys; from ftk.cli import cli\n"
        f"cli(['report', {str(tmp_path)!r}, '--figures', {str(tmp_path / 'figures')!r}], standalone_mode=False)\n"
        "print(*{'torch', 'transformers', 'ftk_plugins'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == ""
    figures = tmp_path / "figures"
    assert done.stdout.split() == [str(tmp_path / PAGE), str(figures / "pareto.svg"), str(figures / "pareto.png")]
    root = ElementTree.parse(figures / "pareto.svg").getroot()
    assert root.attrib["width"].endswith("pt")
    assert "<script>alert(1)</script>" in "".join(root.itertext())
    assert "var(--" not in (figures / "pareto.svg").read_text()
    with Image.open(figures / "pareto.png") as picture:
        assert picture.size[0] == 1920  # 9.6 inches
        assert picture.getpixel((0, 0))[:3] == (255, 255, 255)  # type: ignore[index]


def spoil(run: Path, file: str, content: str) -> Path:
    (run / file).write_text(content)
    return run


@pytest.mark.parametrize(
    ("file", "content", "named"),
    [
        ("report.json", "{", "report.json"),
        ("report.json", "[]", "report.json"),
        ("report.json", '{"status": "completed"}', "report.json"),
        ("recipe.resolved.json", "{", "recipe.resolved.json"),
        ("recipe.resolved.json", '{"recipe": 3}', "run"),
        ("stages/1-capitals/weights.json", '{"drift": {"a": {}}}', "run"),
        ("environment.json", "no", "environment.json"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, file: str, content: str, named: str) -> None:
    result = ftk_("report", str(spoil(write_run(tmp_path / "run"), file, content)))
    assert result.exit_code == 2
    assert named in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda folder: folder / "none", "there is no such folder"),
        (lambda folder: folder, "holds no run of ftk"),
        (lambda folder: spoil(folder, "points.json", '{"points": []}') , "is not a table of points"),
    ],
)  # fmt: skip
def test_what_is_no_run_is_refused(tmp_path: Path, make: Any, told: str) -> None:
    result = ftk_("report", str(make(tmp_path)))
    assert result.exit_code == 2
    assert told in result.output


def test_figures_go_into_a_folder(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    result = ftk_("report", str(run), "--figures", str(run / "report.json"))
    assert result.exit_code == 2
    assert "is a file" in result.output


def test_what_a_reader_has_set_for_other_drawings_changes_nothing(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", status="interrupted")
    before = page_of(run)
    with matplotlib.rc_context({"text.usetex": True, "font.size": 30, "axes.facecolor": "red", "svg.fonttype": "path"}):
        assert page_of(run) == before
        assert matplotlib.rcParams["font.size"] == 30
