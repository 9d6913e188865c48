"""What goes with what, as docs/composition.md tells it: every refusal, and some of the runs, other ones each day."""

from __future__ import annotations

import datetime
import os
import random
from pathlib import Path

import pytest

from tests.composition import ADAPTATIONS, OBJECTIVES, REGISTRY, Cell, cells, page, read_page, write_rows

TOLD = read_page()
RUNNING = [cell for cell in TOLD if not TOLD[cell]]
EVERY_DAY = 3
"""How many of the combinations that run are gone through; all with ``FTK_ALL_COMPOSITIONS=1``."""


def chosen() -> list[Cell]:
    if os.environ.get("FTK_ALL_COMPOSITIONS") == "1":
        return list(TOLD)
    return random.Random(datetime.date.today().toordinal()).sample(RUNNING, EVERY_DAY)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cells")
    write_rows(folder)
    return folder


def test_the_page_tells_of_every_combination() -> None:
    assert list(TOLD) == list(cells())
    assert page(TOLD) == (Path(__file__).parents[2] / "docs/composition.md").read_text(encoding="utf-8")
    assert set(ADAPTATIONS) == {entry.variant.name for entry in REGISTRY.entries("adaptation")}
    for objective in OBJECTIVES:
        kept = [cell for cell in RUNNING if cell.objective == objective and cell.adaptation in ("full", "lora")]
        refused = 2 if objective == "contrastive" else 0  # rows that are compared have no gradients of their own
        assert len(kept) == 8 - refused, f"under {objective}, `full` and `lora` go with every mitigation"


def test_what_the_page_says_is_refused_is_refused_for_that_reason(rows: Path) -> None:
    for cell, reasons in TOLD.items():
        refusal = cell.refusal(rows)
        assert refusal in ((), reasons), cell
        set_up = "adaptation" in reasons[0].partition(" ")[0] if reasons else False
        assert bool(refusal) == bool(reasons) or set_up, f"{cell}: `ftk check` does not say so"


@pytest.mark.parametrize("cell", chosen(), ids=lambda cell: f"{cell.objective}-{cell.adaptation}-{cell.mitigation}")
def test_what_the_page_says_runs_does(cell: Cell, rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert cell.outcome(rows) == TOLD[cell]
