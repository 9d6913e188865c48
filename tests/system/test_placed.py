"""Layers in main memory and on disk that compute on another device end where layers on one device do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import ftk
from tests.system.placed_runs import ADAPTATIONS
from tests.system.small import PIPELINE, weights, written


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    text = PIPELINE.replace("layers = 1", "layers = 2").replace("steps = 9", "steps = 4")
    text = text.replace("[[evaluator]]", '[[mitigation]]\nuse = "interpolation"\nalpha = 0.7\n[[evaluator]]', 1)
    return written(tmp_path_factory.mktemp("placed"), text)


@pytest.fixture(scope="module")
def plain(recipe: Path) -> ftk.RunResult:
    return ftk.run(recipe, output=recipe.parent / "plain")


@pytest.fixture(scope="module")
def told(recipe: Path) -> dict[str, Any]:
    """What the runs on the second device tell."""
    command = [sys.executable, "-m", "tests.system.placed_runs", str(recipe), str(recipe.parent)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads((recipe.parent / "told.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("use", ADAPTATIONS)
def test_an_adaptation_learns_the_same_of_layers_that_are_away(told: dict[str, Any], use: str) -> None:
    away, here = told["adaptations"][use]
    assert away == pytest.approx(here, rel=1e-5)
    assert here[0] - here[2] > 1e-3, "it learns"


def test_a_pipeline_with_layers_away_ends_where_one_on_the_cpu_does(told: dict[str, Any], plain: ftk.RunResult) -> None:
    """Full tuning and LoRA under EWC, replay and interpolation: the two add up in another order, and no more."""
    here, away = (load_file(plain.folder.parent / run / "model" / "model.safetensors") for run in ("plain", "away"))
    assert here.keys() == away.keys()
    for name, weight in here.items():
        torch.testing.assert_close(away[name], weight, atol=1e-4, rtol=1e-4)
    for metric, rows in plain.report["matrix"].items():
        for row, expected in zip(told["away"]["matrix"][metric], rows, strict=True):
            assert row == pytest.approx(expected, rel=1e-4)
    assert "in main memory" in told["away"]["told"][0]
    assert "on disk" in told["away"]["told"][0]


def test_weights_on_disk_are_the_same_bits_as_in_memory(recipe: Path, plain: ftk.RunResult) -> None:
    disk = ftk.run(recipe, output=recipe.parent / "disk", overrides=['training.device_map={ "model.layers" = "disk" }'])
    assert weights(disk.folder) == weights(plain.folder)
    assert disk.report["matrix"] == plain.report["matrix"]
    assert not [path for path in disk.folder.iterdir() if path.name.startswith("ftk-weights")]
