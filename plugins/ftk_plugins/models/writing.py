"""Letting a model write: what greedy answers and sampled texts share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig

from ftk_plugins.objectives.tokens import Codec


def end_tokens(model: nn.Module, processor: Any) -> list[int]:
    """The ids at which an answer ends: the model's, the tokenizer's, and the chat template's end of a turn.

    The last may be known to neither of the others: a base model that comes with a chat template learns to
    end a turn with a token that its configuration does not list.
    """
    configs = (getattr(model, "generation_config", None), getattr(model, "config", None), processor)
    ids = set(_end_of_turn(processor))
    for config in configs:
        found = getattr(config, "eos_token_id", None)
        ids.update(found if isinstance(found, list | tuple) else [] if found is None else [found])
    return sorted(ids)


def _end_of_turn(processor: Any) -> list[int]:
    """The last special token that the chat template writes after an answer."""
    if not getattr(processor, "chat_template", None):
        return []
    answer = "4242"
    turns = [{"role": "user", "content": "6 times 707?"}, {"role": "assistant", "content": answer}]
    try:
        text = processor.apply_chat_template(turns, tokenize=False)
    except Exception:  # a template is a program; where it fails on a row, that row's error tells of it
        return []
    codec = Codec(processor)
    return [id for id in codec.ids(text.rpartition(answer)[2]) if id in codec.special][-1:]


def left_padded(prompts: Sequence[Sequence[int]], padding: int, device: torch.device) -> dict[str, Tensor]:
    """Stack prompts so that all end at the last position, where answers begin: ``(rows, longest)`` int64."""
    longest = max(len(prompt) for prompt in prompts)
    input_ids = torch.full((len(prompts), longest), padding, dtype=torch.long)
    attention_mask = torch.zeros_like(input_ids)
    for row, prompt in enumerate(prompts):
        input_ids[row, longest - len(prompt) :] = torch.tensor(prompt, dtype=torch.long)
        attention_mask[row, longest - len(prompt) :] = 1
    return {"input_ids": input_ids.to(device), "attention_mask": attention_mask.to(device)}


@contextmanager
def only_with(config: GenerationConfig, model: Any) -> Iterator[None]:
    """Hide the model's own generation settings: ``generate`` fills from them what its caller leaves open."""
    own = model.generation_config
    model.generation_config = config
    try:
        yield
    finally:
        model.generation_config = own


def until(ends: Sequence[int], ids: Sequence[int]) -> list[int]:
    """The ids before the first that ends an answer."""
    stop = next((place for place, id in enumerate(ids) if id in ends), len(ids))
    return list(ids[:stop])
