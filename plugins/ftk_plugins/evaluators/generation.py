"""Greedy, batched generation of the answers to a task's test rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from transformers import GenerationConfig

from ftk import UserError
from ftk.parts import Context, Examples, Task, batches_of_process, tested
from ftk_plugins.objectives.tokens import Codec


def generate_answers(
    model: nn.Module, task: Task, ctx: Context, max_new_tokens: int, batch_size: int
) -> dict[int, str]:
    """Let ``model`` answer the test rows of ``task``, always with the likeliest token; once in each measurement.

    Sampling settings that came with the model (temperature, repetition penalty) have no say, so that a score
    depends on the weights alone. An answer ends where the model or its tokenizer ends a turn.

    Args:
        model: a ``transformers`` model with a language-modelling head, in ``eval`` mode.
        task: its objective gives the prompts.
        ctx: the tokenizer, the device and this process's share of the rows.
        max_new_tokens: where an answer is cut off, in tokens.
        batch_size: rows generated together; the rows are sorted by length first.

    Returns:
        The answers without special tokens, by row index; the rows of this process alone.

    Raises:
        UserError: there are no test rows, a row gives no prompt, or prompt and answer do not fit the
            model's context.
    """
    if ctx.shared is None:
        return _generate(model, task, ctx, max_new_tokens, batch_size)
    # The objects themselves are in the key, compared by identity: what is kept alive is not mistaken for another.
    key = ("answers", model, tested(task), task.objective, max_new_tokens, batch_size)
    if key not in ctx.shared:
        ctx.shared[key] = _generate(model, task, ctx, max_new_tokens, batch_size)
    answers: dict[int, str] = ctx.shared[key]
    return answers


def _generate(model: nn.Module, task: Task, ctx: Context, max_new_tokens: int, batch_size: int) -> dict[int, str]:
    prompts = _prompts(tested(task), ctx.processor)
    _check_room(prompts, max_new_tokens, model, tested(task).origin)
    ends = end_tokens(model, ctx.processor)
    padding = ctx.processor.pad_token_id
    config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        use_cache=True,
        eos_token_id=ends or None,
        pad_token_id=next((id for id in (padding, *ends) if id is not None), 0),
    )
    # A sharded model's processes must take every step together; else `generate` knows when they must.
    together = True if isinstance(model, FSDPModule) else None
    answers: dict[int, str] = {}
    for indices, counts in batches_of_process([len(prompt) for prompt in prompts], batch_size, ctx):
        inputs = _left_padded([prompts[index] for index in indices], config.pad_token_id, ctx.device)
        with ctx.autocast(), _only(config, model):
            written = model.generate(**inputs, generation_config=config, synced_gpus=together)  # type: ignore[operator]
        if counts:
            new = written[:, inputs["input_ids"].shape[1] :].tolist()
            texts = ctx.processor.batch_decode([_until(ends, ids) for ids in new], skip_special_tokens=True)
            answers.update(zip(indices, texts, strict=True))
    return answers


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


def _prompts(examples: Examples, processor: Any) -> list[list[int]]:
    prompts = []
    for number, row in enumerate(examples.rows, start=1):
        try:
            prompts.append(list(examples.objective.prompt(row, processor)))
        except UserError as error:
            raise UserError(f"{examples.origin}, row {number}: {error.message}", error.hint) from error
    return prompts


def _check_room(prompts: Sequence[Sequence[int]], max_new_tokens: int, model: nn.Module, origin: str) -> None:
    positions = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    longest = max(range(len(prompts)), key=lambda index: len(prompts[index]))
    length = len(prompts[longest])
    if positions is not None and length + max_new_tokens > positions:
        raise UserError(
            f"{origin}, row {longest + 1}: a prompt of {length} tokens and an answer of up to"
            f" {max_new_tokens} do not fit the model's context of {positions} tokens",
            "shorten the row, or lower the evaluator's `max_new_tokens`",
        )


def _left_padded(prompts: Sequence[Sequence[int]], padding: int, device: torch.device) -> dict[str, Tensor]:
    """Stack prompts so that all end at the last position, where answers begin: ``(rows, longest)`` int64."""
    longest = max(len(prompt) for prompt in prompts)
    input_ids = torch.full((len(prompts), longest), padding, dtype=torch.long)
    attention_mask = torch.zeros_like(input_ids)
    for row, prompt in enumerate(prompts):
        input_ids[row, longest - len(prompt) :] = torch.tensor(prompt, dtype=torch.long)
        attention_mask[row, longest - len(prompt) :] = 1
    return {"input_ids": input_ids.to(device), "attention_mask": attention_mask.to(device)}


@contextmanager
def _only(config: GenerationConfig, model: Any) -> Iterator[None]:
    """Hide the model's own generation settings: ``generate`` fills from them what its caller leaves open."""
    own = model.generation_config
    model.generation_config = config
    try:
        yield
    finally:
        model.generation_config = own


def _until(ends: Sequence[int], ids: Sequence[int]) -> list[int]:
    """The ids before the first that ends an answer."""
    stop = next((place for place, id in enumerate(ids) if id in ends), len(ids))
    return list(ids[:stop])
