"""What the objectives share that read a text, or a pair of texts, as a whole: encoding, padding, asking the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ftk import UserError
from ftk.parts import Batch, Features
from ftk_plugins.objectives.model_inputs import base_model, forward_parameters

READ = ("input_ids", "attention_mask", "token_type_ids")
"""What a model is given of a batch, as far as it takes it."""

SPACE = "▁"
"""The space before a word where SentencePiece makes it a token of its own, which it may place at the word's letters."""


def encode_texts(
    processor: Any, firsts: Sequence[str], seconds: Sequence[str] | None, max_length: int
) -> list[Features]:
    """Texts, or pairs of texts, with the special tokens that the tokenizer puts around them.

    Args:
        processor: the tokenizer.
        firsts: one for each row.
        seconds: read after the first ones; None: there are none.
        max_length: most tokens of a row, or what the tokenizer says its model takes, if less.

    Returns:
        ``input_ids (time,) int32``, and ``token_type_ids (time,) int8`` where the tokenizer tells the two texts apart.

    Raises:
        UserError: what feeds the model reads images too, and so is no tokenizer.
    """
    if not hasattr(processor, "model_max_length"):
        raise UserError(
            f"the model's {type(processor).__name__} reads more than texts, and the objective reads nothing else",
            "choose a model of texts; for images and their texts the objective image_text_contrastive",
        )
    longest = min(max_length, processor.model_max_length)
    with _truncation_kept(processor):
        encoded = processor(
            list(firsts), None if seconds is None else list(seconds), truncation="longest_first",
            max_length=longest, padding=False, return_attention_mask=False, verbose=False,
        )  # fmt: skip
    types = encoded.get("token_type_ids") or [()] * len(firsts)
    return [_features(ids, kinds) for ids, kinds in zip(encoded["input_ids"], types, strict=True)]


def encode_words(processor: Any, rows: Sequence[Sequence[str]], separator: str, max_length: int) -> list[Features]:
    """Words with the special tokens that the tokenizer puts around a text, and which word each token belongs to.

    A word is read as it stands in running text: all but the first with ``separator`` before it, so that tokenizers
    that write a space into the token of the word behind it give the tokens that their models know.

    Args:
        processor: the tokenizer.
        rows: the words of each row.
        separator: stands between two words.
        max_length: most tokens of a row, or what the tokenizer says its model takes, if less; the rest is cut off.

    Returns:
        ``input_ids`` and ``words``, both ``(time,) int32``: the word's number from 0; -1 of a token that is special,
        or holds of the word nothing but the separator before it.

    Raises:
        UserError: the tokenizer does not tell which token comes from which word.
    """
    if not getattr(processor, "is_fast", False):
        raise UserError(
            "the tokenizer is a slow one, written in Python, which does not tell which token comes from which word",
            'choose a model with a tokenizer.json, or name another tokenizer: `tokenizer = "…"` in [model]',
        )
    with _truncation_kept(processor):
        encoded = processor(
            [[words[0], *(separator + word for word in words[1:])] for words in rows], is_split_into_words=True,
            truncation=True, max_length=min(max_length, processor.model_max_length), padding=False, verbose=False,
        )  # fmt: skip
    return [
        {"input_ids": np.array(row.ids, np.int32), "words": np.fromiter(_words_of(row, len(separator)), np.int32)}
        for row in encoded.encodings
    ]


def padded(items: Sequence[Features]) -> tuple[dict[str, Tensor], list[int]]:
    """Rows of :func:`encode_texts` padded on the right: ``(rows, time) int64`` by name, and their lengths.

    ``attention_mask`` is 0 on padding; ``token_type_ids`` are there if any of the rows has them.
    """
    lengths = [len(item["input_ids"]) for item in items]
    shape = (len(items), max(lengths))
    names = ["input_ids", "attention_mask"]
    if any("token_type_ids" in item for item in items):
        names.append("token_type_ids")
    columns = {name: np.zeros(shape, np.int64) for name in names}
    for index, (item, length) in enumerate(zip(items, lengths, strict=True)):
        columns["attention_mask"][index, :length] = 1
        for name in names:
            if name in item:
                columns[name][index, :length] = item[name]
    return {name: torch.from_numpy(array) for name, array in columns.items()}, lengths


def outputs_of(model: nn.Module, batch: Batch, **arguments: Any) -> Any:
    """What ``model`` gives for the texts of a batch.

    Padding is the token that the model knows as such: one that reads from left to right finds by it where a row ends.
    """
    base = base_model(model)
    taken = forward_parameters(base.__class__)
    inputs: dict[str, Any] = {name: batch.inputs[name] for name in READ if name in batch.inputs and name in taken}
    padding = getattr(getattr(base, "config", None), "pad_token_id", None)
    if padding:
        is_padding = batch.inputs["attention_mask"] == 0
        inputs["input_ids"] = batch.inputs["input_ids"].masked_fill(is_padding, padding)
    if "use_cache" in taken:
        inputs["use_cache"] = False
    return model(**inputs, **arguments)


def _words_of(row: Any, separator: int) -> Iterator[int]:
    """The word of each token of an encoded row; -1 of a special one and of one that holds the separator alone."""
    for word, token, (_, stop) in zip(row.word_ids, row.tokens, row.offsets, strict=True):
        before = word is not None and stop <= (separator if word else 0)
        yield -1 if word is None or before or token == SPACE else word


def _features(ids: Sequence[int], types: Sequence[int]) -> Features:
    features = {"input_ids": np.array(ids, np.int32)}
    return {**features, "token_type_ids": np.array(types, np.int8)} if any(types) else features


@contextmanager
def _truncation_kept(processor: Any) -> Iterator[None]:
    """Within it a call may set how the tokenizer truncates; after it that is as it was, so that it is not saved."""
    backend = getattr(processor, "backend_tokenizer", None)
    before = getattr(backend, "truncation", None)
    try:
        yield
    finally:
        if backend is not None:
            backend.enable_truncation(**before) if before else backend.no_truncation()
