"""Tokens that a recipe adds to a pretrained model: to its tokenizer, its embedding and its output layer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import AddedToken

from ftk import UserError
from ftk_plugins.models.calls import seeded
from ftk_plugins.models.pretrained.options import complaint_about
from ftk_plugins.models.tokenizers import tokenizer_of, vocabulary_rows

Start = Literal["parts", "mean"]


def read_tokens(told: str | tuple[str, ...]) -> tuple[str, ...]:
    """The tokens themselves, or those in the file that ``told`` names, one a line.

    Raises:
        UserError: the file cannot be read, is empty, or has a token twice or one with a space at an end.
    """
    if not isinstance(told, str):
        return told
    try:
        lines = Path(told).expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or getattr(error, "reason", None)
        raise UserError(f"model.new_tokens: {told} cannot be read: {reason}", "give a file of UTF-8 text") from None
    tokens = tuple(line for line in lines if line.strip())
    if complaint := complaint_about(tokens) if tokens else "there are none":
        raise UserError(f"model.new_tokens, in {told}: {complaint}", "write one token a line, each once")
    return tokens


def add_tokens(model: Any, processor: Any, tokens: Sequence[str], start: Start) -> None:
    """Give the tokenizer these tokens, and the model rows for them whose values depend on its own rows alone.

    A row that the model has for them already, as padding of its tables, is used. What is trained later finds the rows
    by ``model.new_token_ids``.

    Args:
        model: changed in place; on the device ``meta`` it gets the shapes alone.
        processor: its tokenizer, or a processor with one.
        tokens: none of which the tokenizer has.
        start: a row is the mean of the rows of the tokens that spelled it so far, or of all.

    Raises:
        UserError: there is no tokenizer, it has one of the tokens, or does not number them in a row.
    """
    tokenizer = tokenizer_of(processor)
    if tokenizer is None:
        raise UserError("model.new_tokens: the model reads no text", "leave it out")
    known = tokenizer.get_vocab()
    if there := [token for token in tokens if token in known]:
        raise UserError(
            f"model.new_tokens: {there[0]!r} is a token of the model already",
            "leave it out; `modules_to_save` of an adaptation trains the rows of all tokens",
        )
    everything = torch.tensor(sorted(set(known.values())))
    spelled = [_spelling(tokenizer, token) if start == "parts" else everything for token in tokens]
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in tokens])
    mark_tokens(model, processor, tokens)
    needed, rows = vocabulary_rows(tokenizer), model.get_input_embeddings().weight.shape[0]
    if needed > rows:
        with seeded(0):  # it draws rows, in the place of which others follow
            model.resize_token_embeddings(needed, mean_resizing=False)
    if model.device.type == "meta":
        return
    for table in _tables(model):
        before = table.detach().clone()
        for number, parts in zip(model.new_token_ids, spelled, strict=True):
            chosen = before[parts] if len(parts) else before[everything]
            table[number] = chosen.float().mean(0).to(table.dtype)


def mark_tokens(model: Any, processor: Any, tokens: Sequence[str]) -> None:
    """Note on the model which rows are those of these tokens, in ``new_token_ids``.

    Raises:
        UserError: the tokenizer does not number them in a row.
    """
    ids = tokenizer_of(processor).convert_tokens_to_ids(list(tokens))  # type: ignore[union-attr]
    if ids != list(range(ids[0], ids[0] + len(ids))):
        raise UserError(
            f"model.new_tokens: this tokenizer gives them the numbers {ids}, which do not follow each other",
            "leave out the one that it spells in another way",
        )
    model.new_token_ids = tuple(ids)


def _spelling(tokenizer: Any, token: str) -> Tensor:
    """What the tokenizer makes of the text of a token that it does not have; nothing where it does not know it."""
    ids = tokenizer(token, add_special_tokens=False)["input_ids"]
    return torch.tensor([number for number in ids if number != tokenizer.unk_token_id], dtype=torch.long)


def _tables(model: Any) -> list[Tensor]:
    """All that has an entry for each token: embedding, output layer, and the output layer's bias."""
    output = model.get_output_embeddings()
    tables = [model.get_input_embeddings().weight]
    if output is not None:
        tables += [tensor for tensor in (output.weight, output.bias) if tensor is not None]
    return list({id(table): table.data for table in tables}.values())
