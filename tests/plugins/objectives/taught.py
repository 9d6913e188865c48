"""Toy teachers on disk, objectives that distil them, and divergences by their definitions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ftk.parts import Objective
from ftk.testing import toy_model, toy_tokenizer
from ftk_plugins.objectives.distillation.distillation import distilled
from ftk_plugins.objectives.distillation.options import DistillationOptions
from tests.plugins.objectives import classes, pictures

KINDS = ("forward_kl", "reverse_kl", "jensen_shannon")


def teachers(folder: Path) -> Path:
    """Teachers on disk: ``tokens`` with more rows of embeddings than tokens, ``masked``, ``labels`` and ``images``."""
    made = {
        "tokens": (toy_model(5, vocab_size=272, hidden_size=48, initializer_range=0.3), toy_tokenizer()),
        "masked": (toy_model(5, "masked_lm", initializer_range=0.3), toy_tokenizer("masked_lm")),
        "labels": (classes.bert(hidden_size=24), classes.tokenizer()),
        "images": (pictures.vit(hidden_size=24), pictures.processor()),
    }
    made["labels"][0].config.id2label = dict(enumerate(("bad", "even", "good")))
    for name, (model, tokenizer) in made.items():
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder


def objective(teacher: Path, of: dict[str, Any], **options: Any) -> Objective:
    return distilled(DistillationOptions(teacher=str(teacher), of=of, **options))


def apart(student: np.ndarray, teacher: np.ndarray, kind: str, temperature: float) -> float:
    """The definition, in float64 and sums over classes, of one target."""

    def softmax(logits: np.ndarray) -> np.ndarray:
        powers = np.exp((logits - logits.max()) / temperature)
        return powers / powers.sum()

    q, p = softmax(student.astype(float)), softmax(teacher.astype(float))
    if kind == "forward_kl":
        return temperature**2 * sum(p * np.log(p / q))
    if kind == "reverse_kl":
        return temperature**2 * sum(q * np.log(q / p))
    middle = (p + q) / 2
    return temperature**2 * (sum(p * np.log(p / middle)) + sum(q * np.log(q / middle))) / 2
