"""The variants of this package keep ftk's contract; a run on pixels that is killed goes on as if it had not been."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from ftk_digits.digits import Digits
from ftk_digits.options import DigitsOptions, PerceptronOptions
from ftk_digits.perceptron import Perceptron
from safetensors.torch import load_file

import ftk
from ftk.testing import conformance_cases

RECIPE = Path(__file__).parents[1] / "recipe.toml"
ROWS = Digits(DigitsOptions()).rows("test").select(range(6)).to_list()
SMALL = (
    "model.hidden=32",
    "training.epochs=1",
    "training.checkpoint_every=10",
    "stage.second.mitigation.ewc.samples=100",
)


def model() -> Perceptron:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Perceptron(PerceptronOptions().hidden).eval()


PIXELS = {"rows": ROWS, "model": model, "processor": lambda: None, "beside": {"objective": {"use": "pixel_classes"}}}
CASES = [
    *conformance_cases("dataset", "digits", {"permutation": 2}, **PIXELS),
    *conformance_cases("model", "perceptron", **PIXELS),
    *conformance_cases("objective", "pixel_classes", **PIXELS),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_contract(case: Any) -> None:
    case.check()


def test_a_permutation_moves_pixels_and_nothing_else() -> None:
    plain, moved = (Digits(DigitsOptions(permutation=seed)).rows("train") for seed in (0, 3))
    assert plain["digit"] == moved["digit"]
    assert plain[0]["pixels"] != moved[0]["pixels"]
    assert sorted(plain[0]["pixels"]) == sorted(moved[0]["pixels"])


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first two stages of the recipe."""
    path = tmp_path_factory.mktemp("recipe") / "recipe.toml"
    path.write_text(RECIPE.read_text(encoding="utf-8").partition('[[stage]]\nname = "third"')[0], encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def whole(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> ftk.RunResult:
    """A run that nothing disturbs."""
    return ftk.run(recipe, output=tmp_path_factory.mktemp("whole") / "run", overrides=SMALL)


def test_a_run_that_was_killed_ends_like_one_that_was_not(recipe: Path, whole: ftk.RunResult, tmp_path: Path) -> None:
    settings = [word for setting in SMALL for word in ("--set", setting)]
    command = [sys.executable, "-m", "ftk", "run", str(recipe), *settings, "--output", str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (tmp_path / "run" / "stages" / "1-first").is_dir() and process.poll() is None:
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert not (tmp_path / "run" / "model").exists(), "it had ended before it could be killed"
    again = ftk.run(recipe, output=tmp_path / "run", overrides=SMALL)
    assert again.report["matrix"] == whole.report["matrix"]
    before, after = weights(whole.folder), weights(again.folder)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert whole.report["stages"][1]["mitigations"]["ewc"]


def test_the_export_loads_as_its_card_says(whole: ftk.RunResult) -> None:
    folder = whole.folder / "model"
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "transformers" not in card
    code = card.partition("```python\n")[2].partition("```")[0].replace("path/to/this/folder", str(folder))
    names: dict[str, Any] = {}
    exec(code, names)
    assert torch.equal(names["model"].head.weight, weights(whole.folder)["head.weight"])
