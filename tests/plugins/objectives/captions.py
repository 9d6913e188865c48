"""Images with captions, and a tiny CLIP with what feeds it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

from tests.plugins.objectives.classes import tokenizer

_DRAWN = np.random.default_rng(0)
ROWS: list[dict[str, Any]] = [
    {"text": text, "image": _DRAWN.integers(0, 256, (8, 8, 3)).tolist()}
    for text in ("a cat", "the old dog sleeps", "an oak", "sun and moon", "rain")
]


def processor() -> Any:
    images = CLIPImageProcessorPil(size={"height": 8, "width": 8}, crop_size={"height": 8, "width": 8})
    return SimpleNamespace(tokenizer=tokenizer(), image_processor=images)


def clip(**sizes: Any) -> nn.Module:
    """A CLIP of one layer in each tower; in ``eval`` mode."""
    tower = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
        "initializer_range": 0.3, **sizes,
    }  # fmt: skip
    tokens = {"vocab_size": 260, "max_position_embeddings": 64, "eos_token_id": 1, "pad_token_id": 0, "bos_token_id": 0}
    config = CLIPConfig(
        text_config={**tower, **tokens}, vision_config={**tower, "image_size": 8, "patch_size": 4}, projection_dim=8
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return CLIPModel(config).eval()
