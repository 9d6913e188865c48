"""What a stage tells of its weights, against the models and the Fisher information that lie beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from safetensors.torch import load_file
from torch import Tensor

import ftk
import ftk.pictures
from ftk.cli import cli
from ftk.disk.bundles import read_bundle
from ftk.events import Events
from tests.system.small import PIPELINE, written


@pytest.fixture(scope="module")
def unpictured() -> None:
    """This run writes its page."""


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory, unpictured: None) -> Path:
    """The stages' folder of a run that trains all weights under EWC, and then LoRA."""
    folder = tmp_path_factory.mktemp("told")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACCELERATE_USE_CPU", "true")
        patch.chdir(folder)
        run = ftk.run(written(folder, PIPELINE), output=folder / "run", overrides=["training.steps=4"])
    return run.folder / "stages"


def difference(stages: Path, name: str) -> tuple[Tensor, Tensor]:
    """A weight before the second stage, and how far that stage moved it, from the two models on disk."""
    before, after = (load_file(stages / n / "model" / "model.safetensors") for n in ("1-capitals", "2-currencies"))
    return before[name], after[name].float() - before[name].float()


def told(stages: Path, stage: str) -> dict[str, dict[str, dict[str, float]]]:
    table: dict[str, dict[str, dict[str, float]]] = json.loads((stages / stage / "weights.json").read_text())
    return table


def test_the_drift_of_lora_is_what_the_merged_models_differ_by(stages: Path) -> None:
    drift = told(stages, "2-currencies")["drift"]
    assert len(drift) == 7  # the linear layers of one block
    for name, numbers in drift.items():
        start, moved = difference(stages, name)
        assert numbers["norm"] == pytest.approx(float(moved.norm()), rel=1e-3)
        assert numbers["relative"] == pytest.approx(float(moved.norm() / start.norm()), rel=1e-3)


def test_importances_are_those_of_the_state_and_what_their_drift_costs(stages: Path) -> None:
    states, _ = read_bundle(stages / "2-currencies" / "state")
    ewc = told(stages, "2-currencies")["importances"]["ewc"]
    assert set(told(stages, "2-currencies")["importances"]) == {"ewc"}  # replay knows of none
    assert set(ewc) == set(told(stages, "2-currencies")["drift"])
    for name, numbers in ewc.items():
        [fisher] = [value for key, value in states["mitigation.ewc"].items() if key.endswith(f"/{name}")]
        assert isinstance(fisher, Tensor)
        _, moved = difference(stages, name)
        assert numbers["mean"] == pytest.approx(float(fisher.mean()), rel=1e-5)
        assert numbers["cost"] == pytest.approx(float((fisher * moved.square()).sum() / 2), rel=1e-2)


def test_of_full_tuning_every_weight_is_told(stages: Path) -> None:
    drift = told(stages, "1-capitals")["drift"]
    after = load_file(stages / "1-capitals" / "model" / "model.safetensors")
    assert set(drift) == set(after)
    assert all(numbers["norm"] > 0 and 0 < numbers["relative"] < 1 for numbers in drift.values())
    norms = {name: numbers["norm"] / numbers["relative"] for name, numbers in drift.items()}  # of the starting model
    ones = [name for name in norms if "norm" in name]
    assert ones
    for name in ones:  # layer norms begin as ones, so that their norm is the root of their size
        assert norms[name] == pytest.approx(after[name].numel() ** 0.5, rel=1e-5)


def test_without_drift_nothing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    without = PIPELINE[: PIPELINE.index("[[mitigation]]")] + PIPELINE[PIPELINE.index("[[stage]]") :]
    recipe = written(tmp_path, without[: without.rindex("[[stage]]")])
    run = ftk.run(
        recipe, output=tmp_path / "run", overrides=["stage.capitals.adaptation.start_copy=none", "training.steps=1"]
    )
    assert (run.folder / "stages" / "1-capitals" / "model").is_dir()
    assert not (run.folder / "stages" / "1-capitals" / "weights.json").exists()


def test_a_run_ends_with_its_page(stages: Path) -> None:
    page = (stages.parent / "report.html").read_text(encoding="utf-8")
    for title in ("Loss and learning rate", "Score matrix: perplexity", "Where old and new compete: ewc"):
        assert f"<bdi>{title}</bdi>" in page
    assert page.count("<svg") == page.count("</figure>") >= 8


def test_a_page_that_cannot_be_drawn_is_a_warning(tmp_path: Path) -> None:
    told: list[str] = []
    ftk.pictures.write_at_end(tmp_path / "none", Events([lambda event: told.append(event.data["text"])]))
    [text] = told
    assert "there is no such folder" in text
    assert f"ftk report {tmp_path / 'none'}" in text


def test_a_terminal_is_shown_curves_and_a_pipe_is_not(stages: Path) -> None:
    run = stages.parent
    call = ["run", str(run.parent / "recipe.toml"), "--output", str(run), "--set", "training.steps=4"]
    piped = CliRunner().invoke(cli, call)  # the run is finished: its end is shown again
    shown = CliRunner().invoke(cli, call, env={"FORCE_COLOR": "1", "COLUMNS": "90"})
    assert (piped.exit_code, shown.exit_code) == (0, 0)
    lines = [line for line in shown.output.splitlines() if "loss" in line]
    assert [line.split()[0] for line in lines] == ["capitals", "currencies"]
    assert all("█" in line and "▁" in line for line in lines)
    assert "█" not in piped.output
