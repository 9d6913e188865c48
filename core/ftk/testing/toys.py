"""Toy models, tokenizers, tasks and contexts: real classes at a size that a test can afford."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ftk.events import Events, RunEvent
from ftk.parts import Adaptation, Context, Evaluator, Examples, Objective, Row, Task
from ftk.running.measuring import measure_task


def toy_tokenizer() -> Any:
    """A byte-level tokenizer without merges: 256 bytes and the special tokens, so that it can write anything."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|pad|>", "<|end|>", "<|unknown|>"]
    vocabulary = {token: index for index, token in enumerate([*special, *alphabet])}
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=[], unk_token="<|unknown|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|end|>", unk_token="<|unknown|>"
    )


def toy_model(seed: int = 0, **sizes: Any) -> Any:
    """A Llama of two layers and 32 channels over :func:`toy_tokenizer`'s vocabulary, float32, in ``eval`` mode.

    Args:
        seed: of its random weights.
        sizes: overrides of :class:`transformers.LlamaConfig`.
    """
    config = LlamaConfig(**{
        "vocab_size": 260, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
        "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None, "tie_word_embeddings": True, **sizes,
    })  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).eval()


def toy_examples(rows: Sequence[Row], objective: Objective, processor: Any = None, origin: str = "toy") -> Examples:
    """These rows under ``objective``."""
    return Examples(Dataset.from_list([dict(row) for row in rows]), objective, processor or toy_tokenizer(), origin)


def toy_task(
    rows: Sequence[Row],
    objective: Objective,
    name: str = "toy",
    evaluators: tuple[Evaluator, ...] = (),
    processor: Any = None,
) -> Task:
    """A task that trains, validates and tests on the same rows."""
    examples = toy_examples(rows, objective, processor)
    return Task(name, objective, examples, examples, examples, evaluators=evaluators)


def toy_context(
    model: nn.Module,
    objective: Objective,
    adaptation: Adaptation | None = None,
    task: Task | None = None,
    earlier: Sequence[Task] = (),
    *,
    seed: int = 0,
    stage: int = 1,
    step: int = 0,
    steps: int = 10,
    events: list[RunEvent] | None = None,
    **changes: Any,
) -> Context:
    """A context as the core makes it, on the CPU in float32; events are appended to ``events``."""

    values: dict[str, Any] = {
        "seed": seed, "stage": stage, "stage_name": task.name if task else "toy", "step": step, "steps": steps,
        "model": model, "processor": toy_tokenizer(), "objective": objective, "adaptation": adaptation,
        "task": task, "earlier": tuple(earlier), "device": torch.device("cpu"), "precision": "fp32",
        "micro_batch_size": 4, "rank": 0, "world_size": 1,
        "events": Events([] if events is None else [events.append]),
        "check_interrupt": lambda: None, "measure": measure_task,
    }  # fmt: skip
    return Context(**{**values, **changes})


def toy_rows(count: int = 8) -> Iterator[dict[str, Any]]:
    """Small instruction rows: ``instruction``, ``input``, ``output``, ``keywords`` and ``text``."""
    for index in range(count):
        question, answer = f"What is {index} plus {index}?", str(2 * index)
        yield {
            "instruction": question, "input": "", "output": answer, "keywords": [answer],
            "text": f"{question} {answer}",
        }  # fmt: skip
