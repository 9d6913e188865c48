"""The recipes `vit_digits` and `distill`, shortened: digits are learned, from labels and from a teacher."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from datasets import Dataset
from PIL import Image
from transformers import pipeline

import ftk
from ftk.cli import cli

ROOT = Path(__file__).parents[2]


def test_its_plan_counts_rows_and_no_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    told = CliRunner().invoke(cli, ["plan", "recipes/vit_digits.toml", "--set", "model.layers=1"])
    assert told.exit_code == 0, told.output
    assert "1,437 rows, 674 steps of 64 rows" in told.stdout
    assert "widest micro-batch: 64 rows\n" in told.stdout


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> ftk.RunResult:
    """What `vit_digits` leaves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        settings = ("model.layers=2", "training.epochs=10", "training.learning_rate=2e-3")
        return ftk.run(
            ROOT / "recipes" / "vit_digits.toml", output=tmp_path_factory.mktemp("digits") / "run", overrides=settings
        )


def test_it_learns_digits_and_tells_them_with_transformers_alone(learned: ftk.RunResult) -> None:
    [[accuracy]] = learned.report["matrix"]["accuracy"]
    [start] = learned.report["start"]["accuracy"]
    assert start < 0.3
    assert accuracy > 0.7
    tell = pipeline("image-classification", model=str(learned.folder / "model"))
    rows = Dataset.from_parquet(str(ROOT / "recipes/data/digits-test.parquet")).select(range(40))
    pictures = [Image.fromarray(np.array(row["image"], np.uint8)).convert("RGB") for row in rows]
    right = [answers[0]["label"] == str(row["label"]) for answers, row in zip(tell(pictures), rows, strict=True)]
    assert np.mean(right) > 0.6


def test_a_student_learns_digits_from_a_teacher_alone(
    learned: ftk.RunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    settings = (f"objective.teacher={learned.folder / 'model'}", "training.epochs=30", "training.learning_rate=4e-3")
    result = ftk.run(ROOT / "recipes" / "distill.toml", output=tmp_path / "run", overrides=settings)
    [[accuracy]] = result.report["matrix"]["accuracy"]
    assert accuracy > 0.3, "no label was learned, and a guess tells a tenth"
    assert result.report["stages"][0]["total_parameters"] < learned.report["stages"][0]["total_parameters"] / 3
