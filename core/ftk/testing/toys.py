"""Toy models, tokenizers, tasks and contexts: real classes at a size that a test can afford."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from torch import nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from ftk.events import Events, RunEvent
from ftk.parts import Adaptation, Context, Evaluator, Examples, Objective, Row, Task
from ftk.running.measuring import measure_task

SENTINELS = 20
"""How many of T5's ``<extra_id_0>``, ``<extra_id_1>``, … a :func:`toy_tokenizer` for such a model has."""


def toy_tokenizer(head: str = "causal_lm") -> Any:
    """A byte-level tokenizer without merges: 256 bytes and the special tokens, so that it can write anything.

    Args:
        head: the kind of head it feeds. For ``masked_lm`` it has a mask token and puts ``<|start|>`` and ``<|end|>``
            around a text, for ``seq2seq_lm`` it has sentinels and puts ``<|end|>`` behind one.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    more = {
        "masked_lm": ["<|mask|>", "<|start|>"],
        "seq2seq_lm": [f"<extra_id_{number}>" for number in range(SENTINELS)],
    }.get(head, [])
    vocabulary = {token: index for index, token in enumerate(["<|pad|>", "<|end|>", "<|unknown|>", *alphabet, *more])}
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=[], unk_token="<|unknown|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if more:
        single = "<|start|> $A <|end|>" if head == "masked_lm" else "$A <|end|>"
        around = [(token, vocabulary[token]) for token in single.split() if token != "$A"]
        tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=around)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|end|>", unk_token="<|unknown|>",
        mask_token="<|mask|>" if head == "masked_lm" else None, extra_special_tokens=more,
    )  # fmt: skip


def toy_model(seed: int = 0, head: str = "causal_lm", **sizes: Any) -> Any:
    """A model of two layers and 32 channels over :func:`toy_tokenizer`'s vocabulary, float32, in ``eval`` mode.

    Args:
        seed: of its random weights.
        head: the kind of head: ``causal_lm`` is a Llama, ``masked_lm`` a BERT, ``seq2seq_lm`` a T5.
        sizes: overrides of its configuration in Transformers.
    """
    token_ids = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
    common: dict[str, Any] = {"vocab_size": 260, "tie_word_embeddings": True, **token_ids}
    config: PreTrainedConfig
    if head == "seq2seq_lm":
        config = T5Config(**{
            **common, "vocab_size": 260 + SENTINELS, "d_model": 32, "d_ff": 64, "d_kv": 8, "num_layers": 2,
            "num_heads": 4, "decoder_start_token_id": 0, "dropout_rate": 0.0, **sizes,
        })  # fmt: skip
    else:
        common |= {
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
            "max_position_embeddings": 256,
        }  # fmt: skip
        if head == "masked_lm":
            config = BertConfig(**{**common, "vocab_size": 262, "hidden_dropout_prob": 0.0, **sizes})
        else:
            config = LlamaConfig(**{**common, "num_key_value_heads": 2, **sizes})
    models = {"causal_lm": LlamaForCausalLM, "masked_lm": BertForMaskedLM, "seq2seq_lm": T5ForConditionalGeneration}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return models[head](config).eval()


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
    """Small rows: ``instruction``, ``input``, ``output``, ``keywords``, ``text``, ``chosen`` and ``rejected``."""
    for index in range(count):
        question, answer = f"What is {index} plus {index}?", str(2 * index)
        yield {
            "instruction": question, "input": "", "output": answer, "keywords": [answer],
            "text": f"{question} {answer}", "chosen": answer, "rejected": f"{answer}0",
        }  # fmt: skip
