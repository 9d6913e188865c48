"""The recipes that read and answer texts, made small: what each says that it shows is there to be seen."""

from __future__ import annotations

from pathlib import Path

import pytest

import ftk

ROOT = Path(__file__).parents[2]


def run_small(name: str, folder: Path, overrides: tuple[str, ...], without: tuple[str, ...] = ()) -> ftk.RunResult:
    recipe = ROOT / "recipes" / f"{name}.toml"
    result = ftk.run(recipe, output=folder, overrides=overrides, without=without)
    assert result.report["status"] == "completed"
    return result


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recipes name their rows by paths from there."""
    monkeypatch.chdir(ROOT)


def test_gpt_pretrain_then_instruct_goes_on_reading(tmp_path: Path) -> None:
    small = (
        "model.hidden_size=48", "model.layers=1", "model.heads=2", "training.learning_rate=8e-3",
        "stage.reading.data.train.limit=60", "stage.reading.data.test.limit=20", "stage.reading.training.steps=40",
        "stage.answering.data.train.limit=3", "stage.answering.data.test.limit=3",
        "stage.answering.data.probes.only_read.limit=2", "stage.answering.training.steps=40",
    )  # fmt: skip
    read = []
    for without in ((), ("replay",)):
        result = run_small("gpt_pretrain_then_instruct", tmp_path / f"run{len(without)}", small, without)
        read.append([row[0] for row in result.report["matrix"]["perplexity"]])
        assert result.report["matrix"]["keyword_accuracy"][1][1] > 0.3
    kept, plain = read
    assert kept[0] == plain[0] < 0.3 * result.report["start"]["perplexity"][0]
    assert plain[1] > 1.5 * plain[0], "answering alone forgets how to read"
    assert kept[1] < 1.2 * kept[0]
