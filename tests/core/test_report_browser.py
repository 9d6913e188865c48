"""The page in a real browser: it draws, prints and follows the scheme; nothing runs, and nothing is asked for."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ftk.pictures.page import write_page
from tests.browser import Tab
from tests.conftest import fetched
from tests.core.pictured import write_run
from tests.core.test_report_page import HOSTILE


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The pages of a run and of a comparison, hostile text wherever text can stand."""
    folder = tmp_path_factory.mktemp("pages")
    run = write_run(folder / "run", ("<b onclick='alert(3)'>one", "two\u202e$x$"), HOSTILE)
    points = [{"label": f"{HOSTILE}{number}", "x": number, "y": -(number**2), "run": "run"} for number in range(4)]
    axis = {"label": HOSTILE, "higher_is_better": True}
    (folder / "points.json").write_text(json.dumps({"name": HOSTILE, "x": axis, "y": axis, "points": points}))
    return [write_page(run), write_page(folder)]


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    made = fetched(lambda: Tab(tmp_path_factory.mktemp("profile")))
    yield made
    made.close()


@pytest.mark.parametrize("which", [0, 1], ids=["run", "comparison"])
def test_every_chart_is_drawn_and_nothing_runs_or_is_asked_for(tab: Tab, pages: list[Path], which: int) -> None:
    tab.open(pages[which])
    sizes = tab.evaluate("[...document.querySelectorAll('figure svg')].map(e => [e.clientWidth, e.clientHeight])")
    assert len(sizes) == (17, 1)[which]
    assert all(width > 180 and height > 80 for width, height in sizes)
    marks = tab.evaluate(
        "[...document.querySelectorAll('figure svg')].map(e => [...e.querySelectorAll('path, use, text')]"
        ".filter(m => m.getBoundingClientRect().width > 0).length)"
    )
    assert min(marks) > 5  # without its texts, which have no width on a system without fonts
    assert tab.evaluate("document.querySelectorAll('script, img, iframe, object, embed, link, b[onclick]').length") == 0
    assert "<script>alert(1)</script>" in tab.evaluate("document.body.textContent")
    told = {method for method, _ in tab.events}
    assert not told & {"Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"}, tab.events
    assert "Page.javascriptDialogOpening" not in told
    asked = [event["request"]["url"] for method, event in tab.events if method == "Network.requestWillBeSent"]
    assert asked == [pages[which].as_uri()]


def test_a_script_would_be_stopped_by_the_policy(tab: Tab, pages: list[Path], tmp_path: Path) -> None:
    """What the first test rests on: were text to become markup, it would not run, and the browser would tell."""
    broken = tmp_path / "broken.html"
    markup = "<script>document.title = 'ran'</script><img src='http://127.0.0.1:9/x.png'></main>"
    broken.write_text(pages[0].read_text().replace("</main>", markup))
    tab.open(broken)
    assert tab.evaluate("document.title") != "ran"
    told = [event["entry"]["text"] for method, event in tab.events if method == "Log.entryAdded"]
    assert len(told) >= 2
    assert all("Content Security Policy" in text for text in told)


def test_the_page_follows_the_scheme_of_its_reader(tab: Tab, pages: list[Path]) -> None:
    tab.open(pages[0])
    colours = []
    for scheme in ("light", "dark"):
        tab.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        colours.append(
            tab.evaluate(
                "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color,"
                "...['text', 'path'].flatMap(kind => [...document.querySelectorAll('figure svg ' + kind)]"
                ".filter(e => !e.closest('defs')).map(e => getComputedStyle(e).fill))]"
            )
        )
    tab.ask("Emulation.setEmulatedMedia", features=[])
    light, dark = colours
    assert light[0] == "rgb(255, 255, 255)"
    assert max(map(int, re.findall(r"\d+", dark[0]))) < 50
    changed = sum(one != other for one, other in zip(light, dark, strict=True))
    assert changed > 0.5 * len(light)
    assert not [fill for fill in dark if fill in ("rgb(0, 0, 0)", "rgb(254, 0, 1)")]  # what no theme has


def test_it_prints_with_its_tables_on_pages_that_fit(tab: Tab, pages: list[Path]) -> None:
    tab.open(pages[0])
    tab.ask("Emulation.setEmulatedMedia", media="print", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    heights = tab.evaluate("[...document.querySelectorAll('details tbody tr')].map(e => e.clientHeight)")
    assert heights
    assert min(heights) > 8
    tab.ask("Emulation.setEmulatedMedia", media="", features=[])
    printed = base64.b64decode(tab.ask("Page.printToPDF", preferCSSPageSize=True)["data"])
    assert printed.startswith(b"%PDF")
    assert 4 <= len(re.findall(rb"/Type\s*/Page\b", printed)) <= 30


def test_a_narrow_page_scrolls_its_tables_and_not_itself(tab: Tab, pages: list[Path]) -> None:
    tab.ask("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=True)
    tab.open(pages[0])
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    tab.ask("Emulation.clearDeviceMetricsOverride")
