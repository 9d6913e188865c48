"""What `interpolation` leaves of a stage is what `ftk merge` makes of the two models that the stage lies between."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

import ftk
from ftk.cli import cli
from tests.system.small import FACTS, HEAD, report_of, written

STAGES = "".join(
    f'[[stage]]\nname = "{name}"\n[stage.data]\ntrain = {{ {FACTS}, relations = "{name}", limit = 6 }}\n'
    for name in ("capital", "currency")
)
RECIPE = f'{HEAD.replace("layers = 1", "layers = 2")}[adaptation]\nuse = "full"\n[data]\noverlap = "allow"\n{STAGES}'


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without interpolation: the models before and after its second stage."""
    folder = tmp_path_factory.mktemp("plain")
    return ftk.run(written(folder, RECIPE), output=folder / "run", overrides=["training.steps=4"]).folder


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ('{ use = "ties", density = 0.3 }', ["--method", "ties", "--density", "0.3"]),
        ('{ use = "lines", first = 0.25 }', ["--method", "lines", "--first", "0.25"]),
    ],
    ids=["ties", "lines"],
)
def test_a_stage_ends_where_the_command_would_put_it(
    plain: Path, tmp_path: Path, method: str, arguments: list[str]
) -> None:
    mitigation = f'[[stage.mitigation]]\nuse = "interpolation"\nalpha = 1.0\nmethod = {method}\n'
    run = ftk.run(written(tmp_path, RECIPE + mitigation), output=tmp_path / "run", overrides=["training.steps=4"])
    start, end = (plain / "stages" / stage / "model" for stage in ("1-capital", "2-currency"))
    merged = ["merge", str(end), "--base", str(start), "--out", str(tmp_path / "merged"), *arguments]
    told = CliRunner().invoke(cli, merged)
    assert told.exit_code == 0, told.output
    by_run, by_command = (
        load_file(folder / "model.safetensors") for folder in (run.folder / "model", tmp_path / "merged")
    )
    trained = load_file(end / "model.safetensors")
    assert by_run.keys() == by_command.keys() == trained.keys()
    for name, tensor in by_run.items():
        torch.testing.assert_close(tensor, by_command[name], atol=1e-6, rtol=1e-5)
    assert any((by_run[name] - trained[name]).abs().max() > 1e-4 for name in trained)
    assert report_of(run.folder)["stages"][1]["mitigations"]["interpolation"]["method"] == arguments[1]
