"""Every adaptation through a whole run: interrupted and resumed it ends in the same bits, and what it leaves loads."""

from __future__ import annotations

import math
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import ftk
from ftk.parts import Examples
from tests.core.loops import build
from tests.system.forge import Forge
from tests.system.one_stage import run, stopped_at
from tests.system.small import FACTS, ONE_STAGE, events_of, written
from tests.system.test_distributed import start_ranks

CHOICES = {
    "head": '{ use = "head", also = ["model.norm.weight", "*.mlp.down_proj.*"] }',
    "partial": '{ use = "partial", blocks = 1 }',
    "layerwise_lr": '{ use = "layerwise_lr", decay = 0.5 }',
    "progressive": '{ use = "progressive", thawed_by = 0.9 }',
    "prompt": '{ use = "prompt", tokens = 3 }',
    "prefix": '{ use = "prefix", tokens = 3 }',
    "bottleneck": '{ use = "bottleneck", size = 4, modules_to_save = ["model.norm"] }',
}
BESIDE = ("prompt", "prefix", "bottleneck")
"""Those that do not merge."""

MEASURED = (
    'evaluator=[{ use = "perplexity" }, { use = "keyword_accuracy", max_new_tokens = 3 }]',
    f"data.test={{ {FACTS}, relations = 'capital', limit = 4 }}",
    f"data.retain={{ {FACTS}, relations = 'iso_code', limit = 4 }}",
    f"data.retain_test={{ {FACTS}, relations = 'iso_code', limit = 4 }}",
    'mitigation=[{ use = "replay", share = 0.3 }]',
)


def tensors(result: ftk.RunResult) -> dict[str, torch.Tensor]:
    """Everything that a run leaves in `model/`, the adapter's tensors too."""
    files = sorted((result.folder / "model").rglob("*.safetensors"))
    return {f"{file.parent.name}/{name}": tensor for file in files for name, tensor in load_file(file).items()}


@pytest.mark.parametrize("name", CHOICES)
def test_stopped_and_resumed_it_ends_in_the_same_bits(name: str, here: Path) -> None:
    choice = f"adaptation={CHOICES[name]}"
    whole = run(here, choice, *MEASURED, output="whole")
    stopped_at(here, 5, choice, *MEASURED, output="cut")
    resumed = run(here, choice, *MEASURED, output="cut")
    expected, found = tensors(whole), tensors(resumed)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], weight) for key, weight in expected.items())
    assert resumed.report["matrix"] == whole.report["matrix"]
    (facts,) = whole.report["stages"]
    assert (facts["trainable_parameters"] == facts["total_parameters"]) == (name in ("layerwise_lr", "progressive"))
    model = AutoModelForCausalLM.from_pretrained(whole.folder / "model")
    if name in BESIDE:
        card = (whole.folder / "model" / "README.md").read_text(encoding="utf-8")
        assert "Only with what it learned has it the scores above" in card
        model = with_adapter(model, whole.folder / "model" / "adapter")
    assert perplexity(model, whole) == pytest.approx(whole.report["matrix"]["perplexity"][-1][-1], rel=1e-4)


def with_adapter(model: Any, folder: Path) -> Any:
    """The model with what was learned beside it: by PEFT, or by the file that the folder brings."""
    if (folder / "adapter_config.json").is_file():
        return PeftModel.from_pretrained(model, folder).eval()
    loader = runpy.run_path(str(folder / "load_adapter.py"))
    return loader["load_adapter"](model, folder).eval()


@torch.no_grad()
def perplexity(model: Any, result: ftk.RunResult) -> float:
    """That of the test rows, token by token, without anything of a run but its rows and its objective."""
    objective = build("objective", "instruction", template="{instruction} ")
    source = build("dataset", "world_facts", languages="en", templates_per_fact=1, relations="capital", limit=4)
    tokenizer = AutoTokenizer.from_pretrained(result.folder / "model")
    total = count = 0.0
    for item in Examples(source.rows("train"), objective, tokenizer, "test").items:
        ids, labels = (torch.from_numpy(item[key])[None].long() for key in ("input_ids", "labels"))
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, -ids.shape[1] :]
        losses = torch.nn.functional.cross_entropy(logits[0, :-1], labels[0, 1:], reduction="sum", ignore_index=-100)
        total, count = total + float(losses), count + int((labels[0, 1:] != -100).sum())
    return math.exp(total / count)


@pytest.mark.parametrize("name", BESIDE)
def test_what_they_cannot_do_is_refused(name: str, here: Path) -> None:
    choice = f"adaptation={CHOICES[name]}"
    with pytest.raises(ftk.RecipeError, match=f"adaptation `{name}` does not provide"):
        run(here, choice, *MEASURED[:-1], 'mitigation=[{ use = "ewc" }, { use = "interpolation" }]', output="no")


@pytest.mark.parametrize("name", ["prompt", "prefix"])
def test_virtual_tokens_are_for_objectives_that_predict_the_next_one(name: str, here: Path) -> None:
    with pytest.raises(ftk.RecipeError, match=f"`{name}` needs next-token, which objective `masked_lm` does not"):
        run(here, f"adaptation={CHOICES[name]}", "objective={ use = 'masked_lm' }", output="no")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (['adaptation={ use = "progressive", thaw_every = 5 }'], "2 thaws, 5 steps apart, do not fit into 9 steps"),
        (['adaptation={ use = "prompt" }', "objective.packing=true"], "adaptation `prompt`: rows are packed"),
    ],
)
def test_what_only_the_stage_shows_is_told_before_anything_is_trained(
    settings: list[str], said: str, here: Path
) -> None:
    with pytest.raises(ftk.UserError, match=said):
        run(here, *settings, *MEASURED, output="no")
    assert not events_of(here / "no", "measured")


@pytest.mark.parametrize("name", ["head", "progressive"])
def test_divided_weights_end_where_whole_ones_do(name: str, here: Path, forge: Forge) -> None:
    recipe, choice = written(here, ONE_STAGE), f"adaptation={CHOICES[name]}"
    alone = tensors(run(here, choice, output="alone"))
    command = ("run", recipe, "--output", here / "divided", "--set", choice, "--set", "training.sharding=full")
    for rank in (ranks := start_ranks(forge, *command)):
        assert rank.wait() == 0, "\n".join(rank.told() for rank in ranks)
    divided = load_file(here / "divided" / "model" / "model.safetensors")
    for key, tensor in divided.items():
        torch.testing.assert_close(tensor, alone[f"model/{key}"], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["prefix", "bottleneck", "adalora"])
def test_two_processes_learn_what_one_learns(name: str, here: Path, forge: Forge) -> None:
    told = {**CHOICES, "adalora": '{ use = "adalora", rank = 2, every = 2 }'}[name]
    recipe, choice = written(here, ONE_STAGE), f"adaptation={told}"
    alone = run(here, choice, output="alone")
    for rank in (ranks := start_ranks(forge, "run", recipe, "--output", here / "both", "--set", choice)):
        assert rank.wait() == 0, "\n".join(rank.told() for rank in ranks)
    both, one = (load_file(next((here / run / "model" / "adapter").glob("*.safetensors"))) for run in ("both", "alone"))
    assert both.keys() == one.keys()
    for key, tensor in one.items():
        torch.testing.assert_close(both[key], tensor, atol=2e-5, rtol=1e-4)
    assert alone.report["stages"][0]["trainable_parameters"] > 0
