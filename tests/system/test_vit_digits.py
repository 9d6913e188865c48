"""The recipe `vit_digits`, shortened: digits are learned, and the export tells them with transformers alone."""

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


def test_it_learns_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    settings = ("model.layers=2", "training.epochs=10", "training.learning_rate=2e-3")
    result = ftk.run(ROOT / "recipes" / "vit_digits.toml", output=tmp_path / "run", overrides=settings)
    [[learned]] = result.report["matrix"]["accuracy"]
    [start] = result.report["start"]["accuracy"]
    assert start < 0.3
    assert learned > 0.7
    tell = pipeline("image-classification", model=str(result.folder / "model"))
    rows = Dataset.from_parquet(str(ROOT / "recipes/data/digits-test.parquet")).select(range(40))
    pictures = [Image.fromarray(np.array(row["image"], np.uint8)).convert("RGB") for row in rows]
    right = [answers[0]["label"] == str(row["label"]) for answers, row in zip(tell(pictures), rows, strict=True)]
    assert np.mean(right) > 0.6
