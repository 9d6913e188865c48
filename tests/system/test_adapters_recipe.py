"""The recipe that any adaptation goes into: every one fits, and the table tells what a run's report says."""

from __future__ import annotations

from pathlib import Path

import pytest

import ftk
from ftk.plugin.discovery import load_registry
from ftk.recipe.reading import load_recipe
from tests import adapters

SMALL = (
    "model={use='scratch', hidden_size=32, layers=1, heads=2, vocabulary_size=400}",
    *(
        f"stage.{stage}.{setting}"
        for stage in ("capitals", "currencies")
        for setting in ("data.train.limit=4", "data.test.limit=4", "training.steps=3")
    ),
)  # fmt: skip


def test_every_adaptation_goes_into_it() -> None:
    assert set(adapters.CHOICES) == {
        entry.variant.name for entry in load_registry(third_party=False).entries("adaptation")
    }
    for use in adapters.CHOICES:
        first, second = load_recipe(adapters.RECIPE, overrides=adapters.overrides(use)).stages
        assert (first.adaptation.name, second.adaptation.name) == ("full", use)


def test_the_page_has_a_line_for_each() -> None:
    _, _, table = adapters.PAGE.read_text(encoding="utf-8").partition(adapters.BEGIN)
    header, _, *lines = table.partition(adapters.END)[0].strip().split("\n")
    assert header == adapters.HEADER
    for use, line in zip(adapters.CHOICES, lines, strict=True):
        options, rate = adapters.CHOICES[use]
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[0] == f"[`{use}`](variants/adaptations/{use}.md)"
        assert cells[1:3] == [f"`{options}`" if options else "", f"{rate:g}"]
        assert len(cells) == adapters.HEADER.count("|") - 1


@pytest.mark.parametrize("use", ["ia3", "prompt"])
def test_a_line_is_what_the_report_says(use: str, tmp_path: Path) -> None:
    line = adapters.run(use, tmp_path, *SMALL)
    report = ftk.run(adapters.RECIPE, output=tmp_path / use, overrides=[*adapters.overrides(use), *SMALL]).report
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    kept, learned = report["matrix"]["keyword_accuracy"][1]
    assert cells[3:6] == [f"{learned:.2f}", f"{kept:.2f}", f"{report['stages'][1]['trainable_parameters']:,}"]
    assert report["tasks"] == ["capitals", "currencies"]
