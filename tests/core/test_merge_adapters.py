"""Adapters in `ftk merge`: as PEFT merges them, products and never factors, and as an adapter again."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from tests.core.merging_lab import merge, save_adapter, save_model, weights

Q = "model.layers.0.self_attn.q_proj.weight"
SETTINGS = {
    "one": {"rank_pattern": {"layers.0.self_attn.q_proj": 2}, "alpha_pattern": {"down_proj": 12}},
    "two": {"use_rslora": True, "target_modules": ["q_proj", "up_proj"], "modules_to_save": ["norm"]},
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapters")
    save_model(folder / "base", 0)
    save_model(folder / "model", 9)
    return folder


@pytest.fixture(scope="module")
def by_peft(lab: Path) -> dict[str, dict[str, Tensor]]:
    """The base with each adapter merged in, as PEFT does it."""
    return {
        name: save_adapter(lab / name, lab / "base", n, **given) for n, (name, given) in enumerate(SETTINGS.items())
    }


def merged(lab: Path, *arguments: str | Path) -> dict[str, Tensor]:
    result = merge(*arguments, "--base", lab / "base")
    assert result.exit_code == 0, result.output
    [out] = [Path(after) for option, after in pairwise(arguments) if option == "--out"]
    return weights(out)


def test_one_adapter_goes_into_its_base(lab: Path, by_peft: dict[str, dict[str, Tensor]], tmp_path: Path) -> None:
    for name in SETTINGS:
        found = merged(lab, lab / name, "--out", tmp_path / name)
        for key, tensor in found.items():
            torch.testing.assert_close(tensor, by_peft[name][key], atol=1e-6, rtol=1e-5)
        AutoModelForCausalLM.from_pretrained(tmp_path / name)
    base = weights(lab / "base")
    moved = {key for key, tensor in found.items() if not torch.equal(tensor, base[key])}
    assert moved == {key for key in base if "q_proj" in key or "up_proj" in key or "norm" in key}


def test_products_are_averaged_and_not_factors(
    lab: Path, by_peft: dict[str, dict[str, Tensor]], tmp_path: Path
) -> None:
    found = merged(lab, lab / "one", lab / "two", "--weights", "1,3", "--out", tmp_path / "m")
    for key, tensor in found.items():
        expected = 0.25 * by_peft["one"][key] + 0.75 * by_peft["two"][key]
        torch.testing.assert_close(tensor, expected, atol=1e-6, rtol=1e-5)


def test_an_adapter_beside_a_model_under_ties(lab: Path, by_peft: dict[str, dict[str, Tensor]], tmp_path: Path) -> None:
    found = merged(lab, lab / "one", lab / "model", "--method", "ties", "--density", "1", "--out", tmp_path / "m")[Q]
    base, model = weights(lab / "base")[Q], weights(lab / "model")[Q]
    vectors = torch.stack([by_peft["one"][Q] - base, model - base])
    agree = vectors.sign() == torch.where(vectors.sum(0) >= 0, 1, -1)
    expected = base + (vectors * agree).sum(0) / agree.sum(0).clamp(min=1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_an_adapter_is_written_again(lab: Path, by_peft: dict[str, dict[str, Tensor]], tmp_path: Path) -> None:
    sums = {key: 0.5 * by_peft["one"][key] + 0.5 * by_peft["two"][key] for key in by_peft["one"]}
    told = merge(
        lab / "one", lab / "two", "--base", lab / "base", "--adapter-rank", "6", "--out", tmp_path / "m", "--json"
    )
    errors = json.loads(told.stdout)["errors"]
    assert max(errors.values()) < 1e-4, "a sum of ranks 3 and 3 has rank 6"
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == [
        "README.md", "adapter_config.json", "adapter_model.safetensors",
    ]  # fmt: skip
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(lab / "base"), str(tmp_path / "m"))
    found = model.merge_and_unload().state_dict()
    for key, tensor in found.items():
        torch.testing.assert_close(tensor, sums[key], atol=1e-5, rtol=1e-4)


def test_the_error_of_a_low_rank_is_the_least_there_is(
    lab: Path, by_peft: dict[str, dict[str, Tensor]], tmp_path: Path
) -> None:
    told = merge(
        lab / "one", lab / "two", "--base", lab / "base", "--adapter-rank", "2", "--out", tmp_path / "m", "--json"
    )
    errors, base = json.loads(told.stdout)["errors"], weights(lab / "base")
    change = (0.5 * by_peft["one"][Q] + 0.5 * by_peft["two"][Q] - base[Q]).numpy().astype(np.float64)
    values = np.linalg.svd(change, compute_uv=False)
    assert errors[Q] == pytest.approx(np.sqrt((values[2:] ** 2).sum() / (values**2).sum()), rel=1e-3)
    again = merged(lab, tmp_path / "m", "--out", tmp_path / "n")[Q]
    left = np.linalg.norm(change - (again - base[Q]).numpy()) / np.linalg.norm(change)
    assert left == pytest.approx(errors[Q], rel=1e-3)
    assert "leaves out" in (tmp_path / "m" / "README.md").read_text()
    assert (
        load_file(tmp_path / "m" / "adapter_model.safetensors")[f"base_model.model.{Q[:-7]}.lora_A.weight"].shape[0]
        == 2
    )
