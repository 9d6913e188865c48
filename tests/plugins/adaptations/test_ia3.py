"""(IA)³: which layers are rescaled, at which end, and how the factors are trained."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from ftk import UserError
from ftk.testing import toy_model
from tests.plugins.adaptations.effective import MODELS, attached


def factors(model: Any) -> dict[str, torch.Size]:
    return {
        name.removesuffix(".ia3_l.default"): parameter.shape
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def test_keys_values_and_feed_forward_inputs_by_default() -> None:
    adaptation, model = attached("ia3", toy_model(num_hidden_layers=1))
    prefix = "model.layers.0"
    assert factors(model) == {
        f"{prefix}.self_attn.k_proj": (16, 1),
        f"{prefix}.self_attn.v_proj": (16, 1),
        f"{prefix}.mlp.down_proj": (1, 64),
    }
    (group,) = adaptation.param_groups(model, 0.5)
    assert group["weight_decay"] == 0
    _, model = attached("ia3", MODELS["gpt2"]())
    assert {name.partition(".h.0.")[2] for name in factors(model)} - {""} == {"attn.c_attn", "mlp.c_proj"}


def test_a_model_that_has_biases_moves_them_where_outputs_are_rescaled() -> None:
    config = BertConfig(vocab_size=60, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24)
    adaptation, _ = attached("ia3", BertForSequenceClassification(config), targets=["key", "output.dense"])
    moving = {name.partition("layer.0.")[2] for name in adaptation.drift()}
    assert moving == {
        "attention.self.key.weight", "attention.self.key.bias", "attention.output.dense.weight", "output.dense.weight",
    }  # fmt: skip


def test_what_pefts_tables_do_not_know_must_be_named() -> None:
    model = toy_model()
    model.config.model_type = "unheard_of"
    with pytest.raises(UserError, match=r"adaptation.targets: PEFT does not know .* 'unheard_of'\n  Name them"):
        attached("ia3", model)
    with pytest.raises(UserError, match=r"adaptation.feedforward: PEFT does not know"):
        attached("ia3", model, targets=["k_proj"])
    with pytest.raises(UserError, match=r"feedforward: 'down_proj' matches no layer among the targets"):
        attached("ia3", toy_model(), targets=["k_proj"], feedforward=["down_proj"])
