"""The command behind docs/results.md: every method is a right recipe, and a run of two makes a table."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ftk.plugin.discovery import load_registry
from ftk.plugin.registry import Registry
from ftk.recipe.reading import load_recipe
from tests.results import one
from tests.results.__main__ import Runs
from tests.results.methods import Method, strengths
from tests.results.page import DOCS, table, write_pages
from tests.results.promises import Kept, allowances, floors
from tests.results.streams import STREAMS


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry()


@pytest.mark.parametrize(
    ("stream", "method"), [(stream, method) for stream in STREAMS.values() for method in stream.methods],
    ids=lambda each: each.name,
)  # fmt: skip
def test_every_method_is_a_right_recipe_on_every_stream(stream, method, registry, tmp_path: Path) -> None:
    for change in method.grid or [""]:
        settings = Runs(stream, method, tmp_path).settings([change] if change else [])
        recipe = load_recipe(stream.recipe, overrides=settings, registry=registry)
        *_, last = recipe.stages
        assert [spec.variant.name for spec in last.mitigations] == [
            text.partition('use = "')[2].partition('"')[0] for text in method.mitigations
        ]
        assert last.adaptation.variant.name == ("full" if method.full else "lora") or method.joint


def test_runs_are_tuned_made_once_and_told_in_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = STREAMS["facts"]
    tiny = replace(stream, settings=(
        *stream.settings, "model={ use = 'scratch', hidden_size = 16, layers = 1, heads = 2, vocabulary_size = 300 }",
        "stage.more.sequence.values=['symbol']", "stage.more.training={ steps = 2 }",
        "stage.capital.training={ steps = 2 }",
        *(f"stage.{at}.data.{role}.limit=4" for at in ("capital", "more") for role in ("train", "validation", "test")),
    ))  # fmt: skip
    methods = (Method("none, LoRA"), Method("l2sp", ['use = "l2sp"'], grid=strengths("l2sp", 0.1, 1)))
    tiny = replace(tiny, methods=methods)
    made: list[Any] = []
    monkeypatch.setattr("tests.results.__main__.launch", lambda asked, apart: made.append(asked) or one.main(asked))
    for method in methods:
        Runs(tiny, method, tmp_path).seeded(0)
    assert len(made) == 4
    assert (tmp_path / "facts" / "l2sp" / "chosen.json").is_file()
    for method in methods:
        Runs(tiny, method, tmp_path).seeded(0)
    assert len(made) == 4, "a finished run is not made again"
    longer = replace(methods[1], grid=(*methods[1].grid, "mitigation.l2sp.strength=0.01"))
    Runs(tiny, longer, tmp_path).seeded(0)
    assert sum("tuning" in asked["folder"] for asked in made) == 3, "of a longer grid what is new is tried"
    lines = table(tmp_path, tiny)
    chosen = json.loads((tmp_path / "facts" / "l2sp" / "chosen.json").read_text(encoding="utf-8"))["chosen"][0]
    told = f"| l2sp (strength {chosen.partition('=')[2]})"
    assert [line.split(" | ")[0] for line in lines[2:4]] == ["| none, LoRA", told]
    assert lines[-1].startswith("Seeds 0;")
    beside = replace(tiny, published={"l2sp": 0.5}, methods=(*methods, Method("mas")))
    heads, _, *rows = table(tmp_path, beside)
    assert [line.split(" | ")[-1] for line in (heads, *rows[:3])] == ["published |", "– |", "0.5 |", "– |"]
    assert rows[2].startswith("| mas | not measured yet |")
    docs = Path(shutil.copytree(DOCS, tmp_path / "docs", ignore=lambda path, names: {"variants"} & {*names}))
    write_pages(tmp_path, docs)
    assert f"{told} |" in (docs / "results.md").read_text(encoding="utf-8")
    assert (docs / "reference.md").read_bytes() == (DOCS / "reference.md").read_bytes(), "what has no run stays"


def test_what_was_promised_stands_beside_what_came() -> None:
    held = {"retention_floor": 0.9, "start": {"first": 1.0, "second": 0.5}}
    rises = {
        "first": {"measured": 0.2, "estimated": 0.3, "kept": 0.04},
        "second": {"measured": 0.001, "estimated": 0.1},
    }
    report = {
        "tasks": ["first", "second", "third"],
        "matrix": {"accuracy": [[1.0, 0, 0], [0.8, 0.5, 0], [0.6, 0.55, 1.0]]},
        "stages": [
            {"mitigations": {}},
            {"mitigations": {"ewc": {"allowed_loss": 0.05, "rises": rises}}},
            {"mitigations": {"budget": held}},
        ],
    }
    assert list(floors(report, "accuracy")) == [Kept(0.9, pytest.approx(0.75)), Kept(0.9, pytest.approx(1.1))]
    retained = {
        "tasks": ["retain", "first"], "matrix": {"accuracy": [[0.8, 0.1], [0.6, 1.0]]},
        "stages": [{"mitigations": {"budget": {"retention_floor": 0.9, "start": {"retain": 0.8}}}}],
    }  # fmt: skip
    assert list(floors(retained, "accuracy")) == [Kept(0.9, pytest.approx(0.75))]
    assert list(allowances(report)) == [Kept(0.05, 0.04, pytest.approx(1.5)), Kept(0.05, 0.001)]
