"""Runs with new tokens: two stages under EWC and interpolation, stopped and resumed; refused where there are none."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import ftk
from ftk.events import RunEvent
from ftk.testing import toy_model, toy_tokenizer
from tests.system.small import weights, written

NEW = "<|tool|>"
RECIPE = """
name = "tokens"
seed = 3
[model]
use = "pretrained"
path = "{path}"
new_tokens = ["<|tool|>"]
[objective]
use = "instruction"
template = "{{instruction}} "
[data]
overlap = "allow"
train = {{ use = "files", path = "{path}/rows.jsonl" }}
retain = {{ use = "files", path = "{path}/old.jsonl" }}
[training]
steps = 5
batch_size = 4
learning_rate = 1e-2
checkpoint_every = 2
log_every = 1
precision = "fp32"
[[mitigation]]
use = "ewc"
samples = 4
[[mitigation]]
use = "interpolation"
alpha = 0.5
[[stage]]
name = "first"
adaptation = {{ use = "lora", rank = 2, new_tokens = true }}
[[stage]]
name = "second"
adaptation = {{ use = "dora", rank = 2, new_tokens = true }}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    here = tmp_path_factory.mktemp("tokens")
    toy_model(vocab_size=259).save_pretrained(here)
    toy_tokenizer().save_pretrained(here)
    rows = [{"instruction": f"call {n}", "output": f"{NEW} {n}"} for n in range(8)]
    (here / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    old = [{"instruction": f"say {n}", "output": f"{n}"} for n in range(8)]
    (here / "old.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in old), encoding="utf-8")
    return here


def test_stopped_and_resumed_it_moves_these_rows_alone(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    recipe = written(tmp_path, RECIPE.format(path=folder))
    whole = ftk.run(recipe, output=tmp_path / "whole").folder

    def stop(event: RunEvent) -> None:
        if event.kind == "step" and event.data["step"] == 3 and event.data["stage"] == 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(ftk.Interrupted):
        ftk.run(recipe, output=tmp_path / "stopped", observers=[stop])
    assert weights(ftk.run(recipe, output=tmp_path / "stopped").folder) == weights(whole)
    trained = AutoModelForCausalLM.from_pretrained(whole / "model").get_input_embeddings().weight
    tokenizer = AutoTokenizer.from_pretrained(whole / "model")
    start = toy_model(vocab_size=259).get_input_embeddings().weight
    number = tokenizer.convert_tokens_to_ids(NEW)
    assert trained.shape[0] == number + 1 == 260
    assert torch.equal(trained[:259], start)
    parts = toy_tokenizer()(NEW, add_special_tokens=False)["input_ids"]
    assert (trained[number] - start[parts].mean(0)).abs().max() > 1e-3


def test_without_new_tokens_check_says_where_they_come_from(folder: Path, tmp_path: Path) -> None:
    text = RECIPE.format(path=folder).replace('new_tokens = ["<|tool|>"]', "")
    told = r"`lora` needs new-tokens, which model `pretrained` with these options does not provide"
    with pytest.raises(ftk.RecipeError, match=told):
        ftk.run(written(tmp_path, text), output=tmp_path / "out")
