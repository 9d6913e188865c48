"""Rows with small images, and a tiny vision transformer with what feeds it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

GENERATOR = np.random.default_rng(0)
ROWS: list[dict[str, Any]] = [
    {"image": GENERATOR.integers(0, 256, (8, 8)).tolist(), "label": label}
    for label in ("dot", "bar", "dot", "cup", "bar")
]


def processor() -> Any:
    return ViTImageProcessor(size={"height": 8, "width": 8})


def vit(**sizes: Any) -> nn.Module:
    config = ViTConfig(**{
        "image_size": 8, "patch_size": 4, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_labels": 3, "initializer_range": 0.3, **sizes,
    })  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ViTForImageClassification(config).eval()
