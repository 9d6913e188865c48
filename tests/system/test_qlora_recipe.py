"""The recipe of QLoRA, with a toy model in the place of the real one; where bitsandbytes is installed."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

import ftk
from ftk.testing import toy_model, toy_tokenizer

RECIPE = Path(__file__).parents[2] / "recipes" / "qlora.toml"


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
def test_it_learns_over_4_bits_and_leaves_a_plain_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    toy_model(hidden_size=64, intermediate_size=128).save_pretrained(tmp_path / "model")
    toy_tokenizer().save_pretrained(tmp_path / "model")
    rows = [{"instruction": f"say {n}", "output": f"{n}", "keywords": [f"{n}"]} for n in range(12)]
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    file = f"{{ use = 'files', path = '{tmp_path}/rows.jsonl' }}"
    report = ftk.run(
        RECIPE, output=tmp_path / "run", overrides=[
            f"model.path={tmp_path}/model", "objective.template={instruction} ", f"data.retain={file}",
            f"data.retain_test={file}", f"stage.trivia.data.train={file}", f"stage.trivia.data.test={file}",
            "training.epochs=4", "training.precision=fp32",
        ],
    ).report  # fmt: skip
    assert report["matrix"]["perplexity"][-1][1] < 0.9 * report["start"]["perplexity"][1]
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model")
    assert {str(p.dtype) for p in plain.parameters()} == {"torch.bfloat16"}
    assert (tmp_path / "run" / "model" / "adapter" / "adapter_model.safetensors").is_file()
