"""Rows with labels and numbers, a tokenizer that stands pairs apart, and toy models with a head for them."""

from __future__ import annotations

from typing import Any

import torch
from datasets import Dataset
from tokenizers import processors
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForSequenceClassification

from ftk.parts import Batch, Loss
from ftk.testing import toy_context, toy_tokenizer
from ftk_plugins.objectives.classification.classification import Classification
from ftk_plugins.objectives.classification.options import ClassificationOptions

ROWS: list[dict[str, Any]] = [
    {"text": "a good film", "other": "yes", "label": "good", "tags": ["film", "short"], "score": 4.5},
    {"text": "bad", "other": "no, it is not", "label": "bad", "tags": [], "score": -1.0},
    {"text": "so so, and rather long", "other": "it is", "label": "even", "tags": ["long"], "score": 0.25},
    {"text": "good", "other": "hm", "label": "good", "tags": ["short", "film"], "score": 3.0},
    {"text": "what a film", "other": "why", "label": "good", "tags": ["film"], "score": 2.0},
]
for _row in ROWS:
    _row["two"] = [_row["score"] / 2, len(_row["text"]) / 8]
KINDS: dict[str, dict[str, Any]] = {
    "single": {},
    "weighed": {"class_weights": {"bad": 3.0, "good": 0.5}},
    "pair": {"pair": "other"},
    "multiple": {"kind": "multiple", "label": "tags"},
    "regression": {"kind": "regression", "label": "two"},
}
"""Options for each way of using the objective on :data:`ROWS`."""


def tokenizer() -> Any:
    """The toy tokenizer with an end token behind each text, and the second of a pair told apart."""
    made = toy_tokenizer()
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <|end|>", pair="$A:0 <|end|>:0 $B:1 <|end|>:1", special_tokens=[("<|end|>", 1)]
    )
    made.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    return made


def objective(rows: list[dict[str, Any]] = ROWS, **options: Any) -> Classification:
    """The objective that the rows complete."""
    made = Classification(ClassificationOptions(**options))
    values = made.completed(Dataset.from_list(rows))
    return Classification(ClassificationOptions(**{**options, **values}))


def outputs(made: Classification) -> int:
    return len(made.head.labels)


def bert(labels: int = 3, **sizes: Any) -> nn.Module:
    """A BERT of two layers, larger random weights than usual so that rows differ; in ``eval`` mode."""
    config = BertConfig(**{
        "vocab_size": 260, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "max_position_embeddings": 64, "pad_token_id": 0, "num_labels": labels, "initializer_range": 0.3,
        "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "classifier_dropout": 0.0, **sizes,
    })  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return BertForSequenceClassification(config).eval()


def llama(labels: int = 3, **sizes: Any) -> nn.Module:
    """A Llama that reads from left to right and tells the class at a row's last token."""
    config = LlamaConfig(**{
        "vocab_size": 260, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "pad_token_id": 2, "bos_token_id": None, "eos_token_id": 1, "num_labels": labels, "initializer_range": 0.3,
        **sizes,
    })  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForSequenceClassification(config).eval()


def batch_of(made: Classification, rows: list[dict[str, Any]] = ROWS) -> Batch:
    return made.collate(made.encode_batch(rows, tokenizer()))


def loss_of(made: Classification, model: nn.Module, rows: list[dict[str, Any]] = ROWS, **context: Any) -> Loss:
    return made.loss(model, batch_of(made, rows), toy_context(model, made, **context))
