"""Greedy, batched generation of the answers to a task's test rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torch.distributed.fsdp import FSDPModule
from transformers import GenerationConfig

from ftk import UserError
from ftk.parts import Context, Examples, Task, batches_of_process, gathered, tested
from ftk_plugins.models.writing import end_tokens, left_padded, only_with, until


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
    key = (*_key(model, task, max_new_tokens), batch_size)
    if key not in ctx.shared:
        ctx.shared[key] = _generate(model, task, ctx, max_new_tokens, batch_size)
    answers: dict[int, str] = ctx.shared[key]
    return answers


def answers_to(
    rows: Sequence[int], model: nn.Module, task: Task, ctx: Context, max_new_tokens: int, batch_size: int
) -> list[str]:
    """The answers to some test rows, in their order, in every process.

    Where another evaluator has let the model write as many tokens in this measurement, they are that one's.

    Args:
        rows: their indices.
        model: as for :func:`generate_answers`, and so are the others.
    """
    known = next(
        (value for key, value in (ctx.shared or {}).items() if key[:5] == _key(model, task, max_new_tokens)), None
    )
    if known is None:
        known = _generate(model, task, ctx, max_new_tokens, batch_size, rows)
    found = dict(gathered([(row, known[row]) for row in rows if row in known], ctx))
    return [found[row] for row in rows]


def _key(model: nn.Module, task: Task, max_new_tokens: int) -> tuple[Any, ...]:
    """What answers depend on. The objects themselves, by identity: what is kept alive is not mistaken for another."""
    return ("answers", model, tested(task), task.objective, max_new_tokens)


def _generate(
    model: nn.Module, task: Task, ctx: Context, max_new_tokens: int, batch_size: int, rows: Sequence[int] | None = None
) -> dict[int, str]:
    """The answers to all test rows, or to some; this process's share of them."""
    examples = tested(task)
    chosen = list(range(len(examples))) if rows is None else list(rows)
    prompts = _prompts(examples, chosen, ctx.processor)
    _check_room(prompts, max_new_tokens, model, examples.origin)
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
    for places, counts in batches_of_process([len(prompts[row]) for row in chosen], batch_size, ctx):
        indices = [chosen[place] for place in places]
        inputs = left_padded([prompts[index] for index in indices], config.pad_token_id, ctx.device)
        with ctx.autocast(), only_with(config, model):
            written = model.generate(**inputs, generation_config=config, synced_gpus=together)  # type: ignore[operator]
        if counts:
            new = written[:, inputs["input_ids"].shape[1] :].tolist()
            texts = ctx.processor.batch_decode([until(ends, ids) for ids in new], skip_special_tokens=True)
            answers.update(zip(indices, texts, strict=True))
    return answers


def _prompts(examples: Examples, rows: Sequence[int], processor: Any) -> dict[int, list[int]]:
    chosen = examples.rows if len(rows) == len(examples) else examples.rows.select(rows)
    prompts = {}
    for index, row in zip(rows, chosen, strict=True):
        try:
            prompts[index] = list(examples.objective.prompt(row, processor))
        except UserError as error:
            raise UserError(f"{examples.origin}, row {index + 1}: {error.message}", error.hint) from error
    return prompts


def _check_room(prompts: Mapping[int, Sequence[int]], max_new_tokens: int, model: nn.Module, origin: str) -> None:
    positions = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    longest = max(prompts, key=lambda index: len(prompts[index]))
    length = len(prompts[longest])
    if positions is not None and length + max_new_tokens > positions:
        raise UserError(
            f"{origin}, row {longest + 1}: a prompt of {length} tokens and an answer of up to"
            f" {max_new_tokens} do not fit the model's context of {positions} tokens",
            "shorten the row, or lower the evaluator's `max_new_tokens`",
        )
