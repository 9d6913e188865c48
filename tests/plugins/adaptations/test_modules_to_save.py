"""Modules that are trained whole beside adapters: what moves, what is exported, what is refused."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import LlamaConfig, LlamaForSequenceClassification

from ftk import UserError
from ftk.testing import toy_model
from ftk_plugins.adaptations.lora.options import LoraOptions
from tests.plugins.adaptations.effective import TOKENS, attached, shake, weights_of


def classifier() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=260, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, pad_token_id=0, num_labels=3,
    )  # fmt: skip
    return LlamaForSequenceClassification(config).eval()


@pytest.mark.parametrize("use", ["lora", "dora"])
@pytest.mark.parametrize(
    ("model", "saved"),
    [(classifier, "score"), (toy_model, "embed_tokens"), (toy_model, "layers.1.mlp")],
    ids=["head", "tied", "block"],
)
def test_they_move_and_go_into_the_export(use: str, model: Any, saved: str, tmp_path: Path) -> None:
    plain = model()
    adaptation, adapted = attached(use, copy.deepcopy(plain), rank=4, modules_to_save=[saved])
    moving = {name for name in adaptation.drift() if saved in name}
    assert moving == {name for name, _ in plain.named_parameters() if saved in name}
    groups = adaptation.param_groups(adapted, 0.5)
    assert {group["lr"] for group in groups} == {0.5}
    shake(adapted)
    trained = adapted(TOKENS).logits
    drifts = weights_of(adaptation)
    with torch.no_grad(), adaptation.reference():
        assert torch.equal(adapted(TOKENS).logits, plain(TOKENS).logits)
    assert torch.equal(adapted(TOKENS).logits, trained)

    adaptation.export(tmp_path)
    loaded = PeftModel.from_pretrained(copy.deepcopy(plain), tmp_path / "adapter").eval()
    torch.testing.assert_close(loaded(TOKENS).logits, trained, atol=3e-6, rtol=1e-5)
    merged = adaptation.merge()
    torch.testing.assert_close(merged(TOKENS).logits, trained, atol=3e-6, rtol=1e-5)
    for name, weight in merged.named_parameters():
        moved = drifts.get(name, torch.zeros(()))
        torch.testing.assert_close(weight - plain.get_parameter(name), moved.expand_as(weight), atol=1e-6, rtol=1e-5)
        assert (moved.abs().max() > 1e-3) == (name in drifts)


def test_all_linear_leaves_them_out_and_whoever_names_both_is_told() -> None:
    adaptation, _ = attached("lora", classifier(), modules_to_save=["score"])
    assert "score.weight" in adaptation.drift()
    with pytest.raises(UserError, match=r"score is trained whole by `modules_to_save`"):
        attached("lora", classifier(), targets=["score", "q_proj"], modules_to_save=["score"])
    with pytest.raises(UserError, match=r"modules_to_save: 'scor' matches no module .*\n  did you mean `score`"):
        attached("lora", classifier(), modules_to_save=["scor"])


def test_they_are_scaled_with_the_adapters() -> None:
    plain = classifier()
    adaptation, model = attached("dora", copy.deepcopy(plain), rank=4, modules_to_save=["score"])
    shake(model)
    whole = weights_of(adaptation)
    adaptation.scale(0.25)
    for name, rows in weights_of(adaptation).items():
        torch.testing.assert_close(rows, 0.25 * whole[name], atol=1e-6, rtol=1e-5)
    adaptation.scale(0.0)
    assert torch.equal(model(TOKENS).logits, plain(TOKENS).logits)


def test_their_export_holds_whole_weights_so_that_they_are_not_divided() -> None:
    assert LoraOptions(modules_to_save=("score",)).withheld() == ("sharding",)
    assert LoraOptions().withheld() == ()
