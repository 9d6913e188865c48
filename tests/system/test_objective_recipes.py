"""The recipes of the objectives, made small: they run, and what they leave is an ordinary model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

import ftk
from ftk.cli import cli

RECIPES = Path(__file__).parents[2] / "recipes"


def run_small(name: str, folder: Path, *overrides: str) -> ftk.RunResult:
    result = ftk.run(RECIPES / f"{name}.toml", output=folder / "run", overrides=overrides)
    assert result.report["status"] == "completed"
    return result


def few(*stages: str) -> tuple[str, ...]:
    """A handful of rows and steps in these stages."""
    roles = [f"stage.{stage}.data.{role}.limit=3" for stage in stages for role in ("train", "test")]
    return (*roles, "training={steps=12, batch_size=8, learning_rate=1e-2, log_every=6}")


def test_t5_denoise_leaves_a_model_that_fills_gaps(tmp_path: Path) -> None:
    size: Any = "model={use='scratch', architecture='t5', hidden_size=32, layers=1, heads=2, vocabulary_size=500}"
    result = run_small("t5_denoise", tmp_path, size, *few("capitals", "currencies"))
    perplexity = result.report["matrix"]["perplexity"]
    assert perplexity[0][0] < 0.5 * result.report["start"]["perplexity"][0]
    assert result.report["stages"][1]["mitigations"]["replay"]["rows"] == {"capitals": 18}
    model = AutoModelForSeq2SeqLM.from_pretrained(result.folder / "model")
    tokenizer = AutoTokenizer.from_pretrained(result.folder / "model")
    asked = tokenizer("What is the capital of <extra_id_0>?", return_tensors="pt")
    written = model.generate(**asked, max_new_tokens=6, do_sample=False)
    assert written[0, 0] == model.config.decoder_start_token_id
    assert len(tokenizer.decode(written[0])) > 0


def test_moe_guards_the_experts(tmp_path: Path) -> None:
    size: Any = (
        "model={use='scratch', architecture='mixtral', hidden_size=16, layers=1, heads=2, intermediate_size=16, "
    )
    size += "vocabulary_size=400, config={num_local_experts=3, num_experts_per_tok=1}}"
    result = run_small(
        "moe", tmp_path, size, *few("capitals", "currencies"), "stage.currencies.mitigation.ewc.samples=4"
    )
    first, second = result.report["stages"]
    assert second["mitigations"]["ewc"]["guarded_weights"] == second["trainable_parameters"]
    assert first["trainable_parameters"] == first["total_parameters"]


def test_a_plan_of_a_mixture_of_experts_says_what_it_does_not_know() -> None:
    done = CliRunner().invoke(cli, ["plan", str(RECIPES / "moe.toml")])
    assert done.exit_code == 0, done.output
    assert "depends on values" in done.output


def test_dpo_safety_prefers_and_keeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(RECIPES.parent)  # its rows are in a folder of the repository
    size = "model={use='scratch', hidden_size=32, layers=1, heads=2, vocabulary_size=500}"
    limits = [f"stage.{stage}.data.{role}.limit=4" for stage, role in (("capitals", "train"), ("capitals", "test"))]
    lengths = {"capitals": 10, "requests": 10, "safety": 20}
    steps = [f"stage.{stage}.training={{steps={count}, learning_rate=1e-2}}" for stage, count in lengths.items()]
    result = run_small(
        "dpo_safety", tmp_path, size, *limits, *steps, "training.batch_size=8", "stage.safety.adaptation={use='full'}"
    )
    margins = result.report["matrix"]["preference_margin"]
    assert margins[2][2] > margins[1][2] + 0.2
    assert result.report["stages"][2]["mitigations"]["replay"]["rows"] == {"capitals": 24, "requests": 500}
    events = (result.folder / "events.jsonl").read_text(encoding="utf-8")
    assert '"replay/requests"' not in events
