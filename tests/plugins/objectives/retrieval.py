"""Pairs and triplets of texts, and toy encoders that embed them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import BertConfig, BertModel, LlamaConfig, LlamaModel

from ftk.parts import Batch
from ftk_plugins.objectives.contrastive.contrastive import Contrastive
from ftk_plugins.objectives.contrastive.options import ContrastiveOptions
from tests.plugins.objectives.classes import tokenizer

ROWS: list[dict[str, Any]] = [
    {"anchor": "a cat", "positive": "it purrs", "negative": ["it barks"]},
    {"anchor": "the dog, my dear old dog", "positive": "barks", "negative": ["it purrs", "a long way to go"]},
    {"anchor": "oak", "positive": "a tree of leaves", "negative": ["moss"]},
    {"anchor": "one more thing", "positive": "another", "negative": ["nothing at all"]},
    {"anchor": "sun", "positive": "moon and stars", "negative": ["x", "y", "z"]},
]
KINDS: dict[str, dict[str, Any]] = {
    "pairs": {},
    "triplets": {"kind": "triplets", "negatives": 2, "temperature": 0.2, "symmetric": True},
    "dropout": {"kind": "dropout", "pooling": "cls"},
    "dot": {"normalise": False, "temperature": 10.0, "pooling": "last"},
}
"""Options for each way of using the objective on :data:`ROWS`."""


def objective(**options: Any) -> Contrastive:
    return Contrastive(ContrastiveOptions(**options))


def bert(**sizes: Any) -> nn.Module:
    """A BERT of two layers with a pooler that nothing reads; in ``eval`` mode."""
    config = BertConfig(**{
        "vocab_size": 260, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "max_position_embeddings": 64, "pad_token_id": 0, "initializer_range": 0.3,
        "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, **sizes,
    })  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return BertModel(config).eval()


def llama() -> nn.Module:
    """A Llama without a head, which reads from left to right."""
    config = LlamaConfig(
        vocab_size=260, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        pad_token_id=2, bos_token_id=None, eos_token_id=1, initializer_range=0.3,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaModel(config).eval()


def batch_of(made: Contrastive, rows: list[dict[str, Any]] = ROWS) -> Batch:
    return made.collate(made.encode_batch(rows, tokenizer()))
