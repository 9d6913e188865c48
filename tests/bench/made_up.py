"""Rows to measure with, made up by a seed, and a recipe that learns them with a model that costs nothing."""

from __future__ import annotations

import json
import random
from itertools import islice
from pathlib import Path
from typing import Any

from transformers import LlamaConfig, LlamaForCausalLM

from ftk_plugins.models.scratch.bpe import train_tokenizer
from tests.bench.stages import made_up_texts

QUESTION = "Question: {instruction}\nAnswer: "
INSTRUCTION = {"use": "instruction", "template": QUESTION}
RUNNING_TEXT = {"use": "causal_lm", "max_length": 512}


def write_rows(path: Path, count: int) -> Path:
    """Instruction rows of 5 to 20 words to read and 3 to 15 to write; no two are the same."""
    draw, words = random.Random(0), made_up_texts(1, 1, 500)
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            question = " ".join(draw.choices(words, k=draw.randint(5, 20)))
            answer = " ".join(draw.choices(words, k=draw.randint(3, 15)))
            file.write(json.dumps({"instruction": f"{question} {number}", "output": answer}) + "\n")
    return path


def write_texts(path: Path, size: int) -> Path:
    """Running text of about ``size`` bytes, one or two thousand of them a row."""
    draw, words, written = random.Random(1), made_up_texts(1, 1, 500), 0
    with path.open("w", encoding="utf-8") as file:
        while written < size:
            written += file.write(json.dumps({"text": " ".join(draw.choices(words, k=draw.randint(200, 400)))}) + "\n")
    return path


def write_model(folder: Path, rows: Path) -> Path:
    """A model of one layer, and a tokenizer that the first of the rows have taught."""
    with rows.open(encoding="utf-8") as file:
        texts = [" ".join(json.loads(line).values()) for line in islice(file, 2000)]
    tokenizer = train_tokenizer(lambda: texts, vocabulary_size=2000, max_length=512, mask=False)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_recipe(folder: Path, rows: Path, model: Path, objective: dict[str, Any]) -> Path:
    """A recipe of a single step over the rows, as a JSON table."""
    table = {
        "name": "data", "model": {"use": "pretrained", "path": str(model)}, "objective": objective,
        "adaptation": {"use": "full"}, "data": {"train": {"use": "files", "path": str(rows)}},
        "training": {"steps": 1, "batch_size": 8, "warmup": 0.0, "precision": "fp32"},
    }  # fmt: skip
    path = folder / "recipe.json"
    path.write_text(json.dumps(table), encoding="utf-8")
    return path
