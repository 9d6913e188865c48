"""The worked examples of the page on scaling: their parameters, and their recipe planned with two layers."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from ftk.cli import cli
from ftk.parts import Head
from ftk.testing import toy_tokenizer
from ftk_plugins.models.pretrained.options import PretrainedOptions
from ftk_plugins.models.pretrained.pretrained import Pretrained

TEXT = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text(encoding="utf-8")
CONFIGS = [json.loads(text) for text in re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)]
(RECIPE,) = re.findall(r"```toml\n(name = .*?)```", TEXT, re.DOTALL)
TABLES = [text for text in re.findall(r"```text\n(.*?)```", TEXT, re.DOTALL) if "parameters trained" in text]


def written(folder: Path, config: dict[str, object]) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    toy_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("number", [0, 1], ids=["7B", "70B"])
def test_the_parameters_are_those_of_the_configuration(number: int, tmp_path: Path) -> None:
    config, rank = CONFIGS[number], tomllib.loads(RECIPE)["adaptation"]["rank"]
    options = PretrainedOptions(path=str(written(tmp_path / "model", config)), dtype="bfloat16")
    model = Pretrained(options).outline(Head("causal_lm"), lambda: iter(())).model
    width, wide, keys = config["hidden_size"], config["intermediate_size"], config["num_key_value_heads"] * 128
    adapters = config["num_hidden_layers"] * rank * (2 * (2 * width) + 2 * (width + keys) + 3 * (width + wide))
    total = sum(parameter.numel() for parameter in model.parameters()) + adapters
    assert f"  {adapters:,} of {total:,} parameters trained" in TABLES[number]


@pytest.mark.parametrize(("number", "more"), [(0, ()), (1, ("--devices", "8", "--set", 'training.sharding="full"'))])
def test_its_recipe_is_planned(
    number: int, more: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "models" / "llama-7b", {**CONFIGS[number], "num_hidden_layers": 2})
    (tmp_path / "data").mkdir()
    rows = "".join(json.dumps({"text": "x" * 4200}) + "\n" for _ in range(16))
    (tmp_path / "data" / "texts.jsonl").write_text(rows, encoding="utf-8")
    (tmp_path / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    result = CliRunner().invoke(cli, ["plan", "recipe.toml", "--memory", "80GB", *more])
    assert result.exit_code == 0, result.output
    assert "widest micro-batch: 1 rows of 4,096 tokens" in result.stdout
    assert ("put together" in result.stdout) == bool(more)
