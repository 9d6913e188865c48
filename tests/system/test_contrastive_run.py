"""Stages of `contrastive`: one process and two, cut or whole, make the same model; what cannot be is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

import ftk
from ftk import RecipeError, UserError
from tests.system.forge import Forge
from tests.system.small import written
from tests.system.test_distributed import start_ranks

PLACES = ("north", "south", "east", "west", "hill", "lake", "road", "port")
RECIPE = """
name = "near"
seed = 1
[model]
use = "scratch"
architecture = "bert"
hidden_size = 32
layers = 1
heads = 2
vocabulary_size = 300
config = { hidden_dropout_prob = 0.0, attention_probs_dropout_prob = 0.0 }
[objective]
use = "contrastive"
[adaptation]
use = "full"
[[evaluator]]
use = "recall_at_k"
ks = [1, 3]
[training]
steps = 6
batch_size = 8
micro_batch_size = 3
learning_rate = 5e-2
optimizer = "sgd"
precision = "fp32"
[data]
overlap = "allow"
[[stage]]
name = "towns"
[stage.data]
train = { use = "files", path = "towns.jsonl" }
test = { use = "files", path = "towns.jsonl" }
[[stage]]
name = "rivers"
[[stage.mitigation]]
use = "replay"
share = 0.3
[stage.data]
train = { use = "files", path = "rivers.jsonl" }
test = { use = "files", path = "rivers.jsonl" }
"""


def recipe_in(folder: Path, *changes: tuple[str, str]) -> Path:
    text = RECIPE
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    for name in ("towns", "rivers"):
        rows = [{"anchor": f"{name} of the {place}", "positive": f"{place[::-1]} {name[0]}"} for place in PLACES]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        text = text.replace(f'"{name}.jsonl"', f'"{folder / name}.jsonl"')
    return written(folder, text)


def assert_same(run: Path, other: Path) -> None:
    here, there = (load_file(folder / "model" / "model.safetensors") for folder in (run, other))
    for name, weight in there.items():
        torch.testing.assert_close(here[name], weight, rtol=1e-4, atol=1e-5, msg=lambda told, n=name: f"{n}: {told}")


def test_two_processes_and_another_cut_make_what_one_makes(forge: Forge, tmp_path: Path) -> None:
    recipe = recipe_in(tmp_path)
    alone = ftk.run(recipe, output=tmp_path / "alone")
    start, (towns, rivers) = alone.report["start"]["mrr"], alone.report["matrix"]["mrr"]
    assert towns[0] != start[0]
    assert 0 < rivers[0] <= 1
    whole = ftk.run(recipe, output=tmp_path / "whole", overrides=["training.micro_batch_size=8"])
    assert_same(whole.folder, alone.folder)
    for rank in start_ranks(forge, "run", recipe, "--output", tmp_path / "two"):
        assert rank.wait() == 0, rank.told()
    assert_same(tmp_path / "two", alone.folder)
    model = AutoModel.from_pretrained(whole.folder / "model")
    tokens = AutoTokenizer.from_pretrained(whole.folder / "model")("towns of the lake", return_tensors="pt")
    assert model(**tokens).last_hidden_state.isfinite().all()


def test_what_reads_single_rows_cannot_guard_it(tmp_path: Path) -> None:
    recipe = recipe_in(tmp_path, ('use = "replay"\nshare = 0.3', 'use = "ewc"'))
    with pytest.raises(RecipeError, match="`ewc` needs row-gradients: an earlier task's objective compares rows"):
        ftk.run(recipe, output=tmp_path / "run")


def test_a_divided_model_is_refused(tmp_path: Path) -> None:
    recipe = recipe_in(tmp_path, ("[data]", 'sharding = "full"\n[data]'))
    with pytest.raises(RecipeError, match="`contrastive` embeds every row twice"):
        ftk.run(recipe, output=tmp_path / "run")


def test_noise_on_embeddings_is_refused(tmp_path: Path) -> None:
    recipe = recipe_in(tmp_path, ("[data]", "neftune_noise = 5\n[data]"))
    with pytest.raises(UserError, match="neftune_noise"):
        ftk.run(recipe, output=tmp_path / "run")
