"""Rows of words with tags, tokenizers that cut words in their own ways, and a toy model with a head for tags."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import Unigram, WordPiece
from torch import nn
from transformers import BertConfig, BertForTokenClassification, PreTrainedTokenizerFast

from ftk.parts import Batch, Loss
from ftk.testing import toy_context, toy_tokenizer
from ftk_plugins.models.scratch.bpe import train_tokenizer
from ftk_plugins.objectives.token_classification.options import TokenClassificationOptions
from ftk_plugins.objectives.token_classification.token_classification import TokenClassification

ROWS: list[dict[str, Any]] = [
    {"tokens": ["Anna", "is", "in", "Buenos", "Aires", "."], "tags": ["PER", "O", "O", "LOC", "LOC", "O"]},
    {"tokens": ["Oslo"], "tags": ["LOC"]},
    {"tokens": ["it's", "Bo's", "café"], "tags": ["O", "PER", "O"]},
    {"tokens": ["no", "name", "here"], "tags": ["O", "O", "O"]},
]
NAMES = ("LOC", "O", "PER")


@cache
def tokenizer(kind: str = "bytes") -> Any:
    """A tokenizer.

    ``bytes``: each byte a token, the space too; ``bpe``: spaces are part of words; ``wordpiece``: as BERT's;
    ``sentencepiece``: as XLM-R's, which makes of some spaces tokens that it places at the word behind them.
    """
    if kind == "bytes":
        return toy_tokenizer("masked_lm")
    if kind == "bpe":
        texts = [" ".join(row["tokens"]) for row in ROWS] * 3
        return train_tokenizer(
            lambda: iter(texts), vocabulary_size=290, max_length=64, mask=True, sentinels=0, special_tokens=()
        )
    if kind == "sentencepiece":
        pieces = [
            "▁",
            "▁An",
            "na",
            "▁is",
            "▁in",
            "▁Bu",
            "enos",
            "▁Air",
            "es",
            ".",
            "▁it",
            "'",
            "s",
            "Bo",
            "▁ca",
            "f",
            "▁n",
        ]
        vocabulary = [("<unk>", 0.0), ("</s>", 0.0), *((piece, -2.0) for piece in pieces)]
        made = Tokenizer(Unigram(vocabulary, unk_id=0))
        made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
        return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="</s>", unk_token="<unk>", eos_token="</s>")
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "an", "##na", "is", "in", "bu", "##eno", "##s", "aires", ".", "'"]
    pieces += ["oslo", "it", "s", "bo", "caf", "##e", "no", "name", "he", "##re"]
    made = Tokenizer(WordPiece({piece: index for index, piece in enumerate(pieces)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", eos_token="[SEP]")


def objective(rows: list[dict[str, Any]] = ROWS, **options: Any) -> TokenClassification:
    """The objective that the rows complete."""
    made = TokenClassification(TokenClassificationOptions(**options))
    values = made.completed(Dataset.from_list(rows))
    return TokenClassification(TokenClassificationOptions(**{**options, **values}))


def bert(labels: int = 3) -> nn.Module:
    """A BERT of two layers, larger random weights than usual so that words differ; in ``eval`` mode."""
    config = BertConfig(
        vocab_size=300, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64, pad_token_id=0, num_labels=labels, initializer_range=0.3,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, classifier_dropout=0.0,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return BertForTokenClassification(config).eval()


def batch_of(made: TokenClassification, rows: list[dict[str, Any]] = ROWS) -> Batch:
    return made.collate(made.encode_batch(rows, tokenizer()))


def loss_of(made: TokenClassification, model: nn.Module, rows: list[dict[str, Any]] = ROWS, **context: Any) -> Loss:
    return made.loss(model, batch_of(made, rows), toy_context(model, made, **context))
