"""A real language model from its GGUF file through a whole recipe, and what the run leaves without ftk."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import ftk
from ftk.events import RunEvent
from tests import material
from tests.conftest import fetched

pytestmark = pytest.mark.real_model

RECIPE = Path(__file__).parents[2] / "recipes" / "smollm2_ewc_lora.toml"
ROWS = 12
STEPS = 16
SHRUNK = (
    f"data.retain.limit={ROWS}",
    "data.retain_test.limit=4",
    "adaptation.rank=8",
    f"stage.trivia.data.train.limit={ROWS}",
    f"stage.trivia.data.test.limit={ROWS}",
    "stage.trivia.data.probes={}",
    "stage.trivia.evaluator.keyword_accuracy.max_new_tokens=8",
    "stage.trivia.mitigation.ewc.samples=4",
    f"training.steps={STEPS}",
    "training.batch_size=4",
    "training.log_every=1",
    "training.precision='fp32'",  # so that what plain transformers computes can be compared closely
)

WITHOUT_FTK = """
import importlib.abc, json, math, sys
from pathlib import Path

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("ftk", "ftk_plugins"):
            raise ImportError(f"{name} must not be needed here")

sys.meta_path.insert(0, Refuse())

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

run, start, rows = Path(sys.argv[1]), sys.argv[2], json.loads(Path(sys.argv[3]).read_text(encoding="utf-8"))
tokenizer = AutoTokenizer.from_pretrained(run / "model")
merged = AutoModelForCausalLM.from_pretrained(run / "model", dtype=torch.float32).eval()
base = AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32).eval()

def perplexity(model):
    nats = targets = 0
    for row in rows:
        user = [{"role": "user", "content": row["instruction"]}]
        prompt = tokenizer.apply_chat_template(user, add_generation_prompt=True, tokenize=False)
        ids = tokenizer(prompt, add_special_tokens=False).input_ids
        answer = tokenizer(row["output"] + "<|im_end|>", add_special_tokens=False).input_ids
        logits = model(torch.tensor([ids + answer])).logits[0, len(ids) - 1 : -1]
        nats += torch.nn.functional.cross_entropy(logits, torch.tensor(answer), reduction="sum").item()
        targets += len(answer)
    return math.exp(nats / targets)

with torch.no_grad():
    input_ids = tokenizer(rows[0]["instruction"], return_tensors="pt").input_ids
    told = {"start": base(input_ids).logits, "merged": merged(input_ids).logits}
    told_perplexity = {"start": perplexity(base), "merged": perplexity(merged)}
    adapted = PeftModel.from_pretrained(base, run / "model" / "adapter").eval()
    told["adapted"] = adapted(input_ids).logits
print(json.dumps({
    "adapter_off_by": (told["adapted"] - told["merged"]).abs().max().item(),
    "moved_by": (told["merged"] - told["start"]).abs().max().item(),
    "perplexity": told_perplexity,
    "ftk": sorted(name for name in sys.modules if name.partition(".")[0] in ("ftk", "ftk_plugins")),
}))
"""
"""Measures a run's model with plain ``transformers`` and ``peft``, with ftk impossible to import."""


@dataclass(frozen=True)
class Finished:
    """A run that is over, what it told, and the rows that it learned."""

    folder: Path
    report: dict[str, Any]
    events: list[RunEvent]
    taught: list[dict[str, str]]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    """The recipe, run as its first lines say, but on few rows."""
    folder = tmp_path_factory.mktemp("real")
    files = fetched(lambda: material.write_recipe_material(folder / "material"))
    with (folder / "material" / "trivia-train.jsonl").open(encoding="utf-8") as lines:
        taught = [json.loads(line) for line, _ in zip(lines, range(ROWS), strict=False)]
    events: list[RunEvent] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        result = ftk.run(RECIPE, output="run", overrides=SHRUNK, observers=[events.append])
    yield Finished(folder / result.folder, result.report, events, taught)
    files[0].unlink()  # the model takes too much room to be kept among temporary files


def score(finished: Finished, metric: str, task: str) -> tuple[float, float]:
    """A task's score before and after the stage."""
    column = finished.report["tasks"].index(task)
    return finished.report["start"][metric][column], finished.report["matrix"][metric][-1][column]


def test_it_learns(finished: Finished) -> None:
    losses = [event.data["loss"] for event in finished.events if event.kind == "step"]
    assert len(losses) == STEPS
    assert sum(losses[-5:]) < sum(losses[:5]) / 2
    before, after = score(finished, "perplexity", "trivia")
    assert after < before / 10
    assert all(0 <= value <= 1 for value in score(finished, "keyword_accuracy", "trivia"))


def test_it_keeps(finished: Finished) -> None:
    before, after = score(finished, "perplexity", "retain")
    assert 1 < before < 10, "the instruct model knows how to answer such questions"
    assert after < before * 1.1


def test_every_mitigation_took_part(finished: Finished) -> None:
    told = finished.report["stages"][0]["mitigations"]
    assert told["ewc"]["tasks"]["retain"]["samples"] == 4
    assert told["ewc"]["tasks"]["retain"]["trace"] > 0
    assert told["replay"]["rows"] == {"retain": ROWS}
    assert 0 < told["interpolation"]["alpha"] < 1


def test_what_it_leaves_needs_no_ftk(finished: Finished, smollm2_saved: Path, tmp_path: Path) -> None:
    script, rows = tmp_path / "plain.py", tmp_path / "rows.json"
    script.write_text(WITHOUT_FTK, encoding="utf-8")
    rows.write_text(json.dumps(finished.taught), encoding="utf-8")
    command = [sys.executable, script, finished.folder, smollm2_saved, rows]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["ftk"] == []
    assert told["adapter_off_by"] < 1e-3
    assert told["moved_by"] > 1
    before, after = score(finished, "perplexity", "trivia")
    # The run measured its own model, with the adapter in place, by the loss that it trains on.
    assert math.isclose(told["perplexity"]["start"], before, rel_tol=1e-3)
    assert math.isclose(told["perplexity"]["merged"], after, rel_tol=1e-3)


def test_the_model_says_what_it_is(finished: Finished) -> None:
    card = (finished.folder / "model" / "README.md").read_text(encoding="utf-8")
    for part in ("SmolLM2-135M-Instruct", "trivia", "retain", "ewc", "replay", "interpolation", "perplexity"):
        assert part in card
    assert str(finished.folder) not in card
    adapter = json.loads((finished.folder / "model" / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    assert (adapter["task_type"], adapter["r"]) == ("CAUSAL_LM", 8)
    assert Path(adapter["base_model_name_or_path"]).name == "SmolLM2-135M-Instruct.Q4_1.gguf"
    config = json.loads((finished.folder / "model" / "config.json").read_text(encoding="utf-8"))
    assert "quantization_config" not in config
