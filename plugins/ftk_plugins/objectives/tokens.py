"""What the objectives over tokens share: tokenizing, padding, the summed loss, drawing targets, packing."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ftk import UserError
from ftk.parts import Batch, Context, Features, Head, Loss, Objective, Row

IGNORED = -100
"""The label of a token that is no target."""


class Codec:
    """One tokenizer, with what every row needs of it looked up once.

    Attributes:
        processor: the tokenizer.
        start: the token ids that the tokenizer puts before a text by itself, such as the begin-of-text token.
        special: the ids of all tokens that no plain text spells.
    """

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        plain, whole = self.ids("a"), list(processor("a")["input_ids"])
        matches = (at for at in range(len(whole)) if whole[at : at + len(plain)] == plain)
        self.start: list[int] = whole[: next(matches, 0)]
        self.special = frozenset(processor.all_special_ids) | frozenset(
            index for index, token in processor.added_tokens_decoder.items() if token.special
        )

    def ids(self, text: str) -> list[int]:
        """The token ids of ``text``, without any the tokenizer would add."""
        ids: list[int] = self.processor(text, add_special_tokens=False, return_attention_mask=False, verbose=False)[
            "input_ids"
        ]
        return ids

    @property
    def end(self) -> int:
        """The id of the end-of-text token. Raises ``UserError`` where the tokenizer has none."""
        end: int | None = self.processor.eos_token_id
        if end is None:
            raise UserError(
                "the tokenizer has no end-of-text token, so the model could not learn where to stop",
                "set `eos_token` in the model's tokenizer_config.json",
            )
        return end


class TokenObjective(Objective):
    """Next-token prediction: a row is ``input_ids`` and ``labels``, and its loss the targets' summed NLL.

    A label stands at its own token; the loss shifts once. ``position_ids``, where a row has them, restart
    at 0 wherever a packed row begins.
    """

    def __init__(self) -> None:
        self._codec: Codec | None = None

    @property
    def head(self) -> Head:
        return Head("causal_lm")

    def codec(self, processor: Any) -> Codec:
        """The codec of ``processor``, made at the first row and kept."""
        if self._codec is None or self._codec.processor is not processor:
            self._codec = Codec(processor)
        return self._codec

    @abstractmethod
    def encode(self, row: Row, processor: Any) -> Features:
        """``input_ids`` and ``labels``, both ``(time,) int32``; labels are -100 where no target is."""

    def collate(self, items: Sequence[Features]) -> Batch:
        """Pad on the right into ``input_ids`` and ``labels``, both ``(rows, time) int64``.

        There is no attention mask: causal attention never looks right, where the padding is, and padding is
        no target. ``position_ids`` are there if any of the rows has them.
        """
        lengths = [len(item["input_ids"]) for item in items]
        shape = (len(items), max(lengths))
        columns = {"input_ids": np.zeros(shape, np.int64), "labels": np.full(shape, IGNORED, np.int64)}
        if any("position_ids" in item for item in items):
            columns["position_ids"] = np.zeros(shape, np.int64)
            steps = np.arange(shape[1])
        for index, (item, length) in enumerate(zip(items, lengths, strict=True)):
            columns["input_ids"][index, :length] = item["input_ids"]
            columns["labels"][index, :length] = item["labels"]
            if "position_ids" in columns:
                columns["position_ids"][index, :length] = item.get("position_ids", steps[:length])
                columns["position_ids"][index, length:] = steps[: shape[1] - length]
        count = int(np.count_nonzero(columns["labels"][:, 1:] != IGNORED))
        return Batch({name: torch.from_numpy(array) for name, array in columns.items()}, count, sum(lengths))

    def loss(self, model: nn.Module, batch: Batch, ctx: Context) -> Loss:
        """The negative log-likelihood of all targets, summed in float32.

        ``outputs`` carries ``logits`` ``(targets, vocab)`` in the model's dtype, with their graph, and
        ``labels`` ``(targets,) int64``, both in the order of the batch, row by row.
        """
        logits, labels = target_logits(model, batch)
        log_probabilities = torch.log_softmax(logits, dim=-1, dtype=torch.float32)
        total = -log_probabilities.gather(1, labels[:, None]).sum()
        return Loss(total, batch.count, {"logits": logits, "labels": labels})

    @torch.no_grad()
    def draw_targets(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Batch:
        """Each target replaced by a draw from the model's softmax there; the tokens that are read stay."""
        logits, _ = target_logits(model, batch)
        cumulative = torch.softmax(logits, dim=-1, dtype=torch.float32).cumsum(dim=-1)
        uniform = torch.rand(len(logits), 1, generator=generator, device=generator.device).to(logits.device)
        drawn = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)
        labels = batch.inputs["labels"].clone()
        targets = labels[:, 1:]
        targets[targets != IGNORED] = drawn.squeeze(1).clamp(max=logits.shape[-1] - 1)
        return replace(batch, inputs={**batch.inputs, "labels": labels})


def target_logits(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """The logits that predict the targets, and the targets.

    Only positions at which some row of the batch has a target go through the output layer, where the model
    can leave the others out.

    Returns:
        logits: ``(targets, vocab)`` in the model's dtype, with their graph.
        labels: ``(targets,) int64``.

    Raises:
        UserError: the rows are packed and the model cannot keep packed rows apart.
    """
    inputs, targets = batch.inputs, batch.inputs["labels"][:, 1:]
    rows, time = inputs["input_ids"].shape
    is_target = targets != IGNORED
    columns = is_target.any(dim=0).nonzero().squeeze(1)
    # Counted from the end, so that they also hold where an adaptation puts virtual tokens before the row.
    from_end = columns - time
    base = _base_model(model)
    packed = "position_ids" in inputs
    if packed and "position_ids" not in _forward_parameters(base.__class__):
        raise UserError(
            f"{type(base).__name__} takes no position ids and so cannot keep packed rows apart",
            "set `packing = false`",
        )
    arguments: dict[str, Any] = {name: inputs[name] for name in ("input_ids", "position_ids") if name in inputs}
    if packed and "flash" in str(getattr(base.config, "_attn_implementation", "")):
        # Flash attention sees where packed rows begin only in a batch of one row.
        arguments = {name: tensor.reshape(1, -1) for name, tensor in arguments.items()}
        ends = torch.arange(1 - rows, 1, device=from_end.device) * time
        logits = _logits(model, base, arguments, (ends[:, None] + from_end).flatten())
        logits = logits.view(rows, len(columns), -1)
    else:
        logits = _logits(model, base, arguments, from_end)
    kept_targets, kept = targets[:, columns], is_target[:, columns]
    # Most often every kept position of every row is a target; the copy is only made where it saves something.
    if kept.all():
        return logits.flatten(0, 1), kept_targets.flatten()
    return logits[kept], kept_targets[kept]


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Group rows into blocks of at most ``capacity`` tokens by best-fit decreasing bin packing.

    Longest first, each goes into the fullest block with room for it. Returns the rows'
    indices by block; a pure function of the lengths.
    """
    blocks: list[list[int]] = []
    by_space: defaultdict[int, list[int]] = defaultdict(list)
    spaces: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        at = bisect_left(spaces, lengths[row])
        if at == len(spaces):
            block, space = len(blocks), capacity
            blocks.append([])
        else:
            space = spaces[at]
            block = by_space[space].pop()
            if not by_space[space]:
                del spaces[at]
        blocks[block].append(row)
        left = space - lengths[row]
        if not by_space[left]:
            insort(spaces, left)
        by_space[left].append(block)
    return sorted(sorted(block) for block in blocks)


def join(items: Sequence[Features]) -> Features:
    """One packed row of several: the first token of each is no target, and positions restart there."""
    labels = np.concatenate([item["labels"] for item in items])
    lengths = [len(item["labels"]) for item in items]
    labels[np.cumsum([0, *lengths[:-1]])] = IGNORED
    return {
        "input_ids": np.concatenate([item["input_ids"] for item in items]),
        "labels": labels,
        "position_ids": np.concatenate([np.arange(length, dtype=np.int32) for length in lengths]),
    }


def text_of(row: Row, column: str) -> str | None:
    """The text in a column; a number is written out; None where the row has none there.

    Raises:
        UserError: the column holds something that is no text.
    """
    value = row.get(column)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise UserError(f"column `{column}` holds a {type(value).__name__}, where text is needed")


def columns_of(row: Row) -> str:
    """The columns that the row fills, for messages."""
    filled = [f"`{name}`" for name, value in row.items() if value is not None]
    return ", ".join(filled) if filled else "no columns"


def texts_in(values: Iterator[str | None]) -> Iterator[str]:
    """Those values that are texts with something in them."""
    return (value for value in values if value is not None and value.strip())


def _base_model(model: nn.Module) -> Any:
    """The model whose forward names its parameters, under any wrapper and adapter."""
    base: Any = model
    while isinstance(base, nn.parallel.DistributedDataParallel) or hasattr(base, "_orig_mod"):
        base = base.module if isinstance(base, nn.parallel.DistributedDataParallel) else base._orig_mod
    return base.get_base_model() if hasattr(base, "get_base_model") else base


@lru_cache
def _forward_parameters(model_class: type) -> frozenset[str]:
    return frozenset(inspect.signature(model_class.forward).parameters)  # type: ignore[attr-defined]


def _logits(model: nn.Module, base: Any, arguments: dict[str, Any], columns: Tensor) -> Tensor:
    """The logits ``(rows, columns, vocab)`` at these positions; the only ones computed if the model can."""
    accepted = _forward_parameters(base.__class__)
    if "use_cache" in accepted:
        arguments = {**arguments, "use_cache": False}
    if "logits_to_keep" in accepted:
        logits: Tensor = model(**arguments, logits_to_keep=columns).logits
        return logits
    logits = model(**arguments).logits[:, columns]
    return logits
