"""Toy models under adaptations made of PEFT's layers, and PEFT's own merge as the account of their weights."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from ftk.parts import Adaptation
from ftk.plugin.discovery import load_registry
from ftk.recipe.building import build
from ftk.recipe.levels import Reader
from ftk.testing import toy_model

TOKENS = torch.arange(3, 23).view(2, 10)
REGISTRY = load_registry(third_party=False)


def toy_gpt2() -> Any:
    """Two layers whose linear weights are stored transposed, with biases that are not zero."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=260, n_positions=32, n_embd=32, n_layer=2, n_head=4)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.1)
    return model


def toy_biased() -> Any:
    """A Llama whose linear layers all have biases that are not zero."""
    model = toy_model(attention_bias=True, mlp_bias=True)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(len(name)))
    return model


MODELS = {"llama": toy_model, "gpt2": toy_gpt2, "biased": toy_biased}


def made(use: str, **options: Any) -> Any:
    """The adaptation as a recipe would name it."""
    reader = Reader(REGISTRY)
    spec = reader.part("adaptation", {"use": use, **options}, "adaptation")
    assert spec is not None, reader.problems
    return build(spec, Adaptation)  # type: ignore[type-abstract]


def attached(use: str, model: Any, **options: Any) -> tuple[Any, Any]:
    torch.manual_seed(7)
    adaptation = made(use, **options)
    return adaptation, adaptation.attach(model)


@torch.no_grad()
def shake(model: nn.Module) -> None:
    """Move every trainable parameter, as training would."""
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator).to(parameter)


def merged_by_peft(model: Any, wide: bool = False) -> dict[str, Tensor]:
    """The weights after PEFT's own merge of a copy, in float64 where ``wide``, by their names in the plain model."""
    twin = copy.deepcopy(model)
    for module in twin.modules():
        if hasattr(module, "base_layer") and wide:
            module.base_layer.double()
            for tensor in (*module.parameters(), *module.buffers()):
                tensor.data = tensor.data.double() if tensor.is_floating_point() else tensor.data
    for module in twin.modules():
        if hasattr(module, "base_layer"):
            module.merge()
    return {name.replace(".base_layer", ""): tensor for name, tensor in twin.state_dict().items()}


def weights_of(adaptation: Adaptation) -> dict[str, Tensor]:
    return {name: drift.rows(0, drift.shape[0]) for name, drift in adaptation.drift().items()}
