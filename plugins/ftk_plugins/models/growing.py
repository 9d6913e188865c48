"""Heads that grow: the rows of labels that a saved model has stay as they are, and those of added labels are drawn."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

WEIGHTS = "model.safetensors"


def keep_rows(model: nn.Module, saved: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Put saved weights, whole or with fewer rows than the model's, in the place of the model's first rows.

    Args:
        model: with the larger head, drawn anew.
        saved: by name, each as large as the model's in all dimensions but the first.

    Returns:
        The names of those that have gained rows.
    """
    with torch.no_grad():
        for name, tensor in saved.items():
            model.get_parameter(name)[: len(tensor)] = tensor
    return tuple(name for name, tensor in saved.items() if len(tensor) < len(model.get_parameter(name)))


def shorter(folder: Path, misfits: Iterable[tuple[str, Any, Any]]) -> dict[str, Tensor]:
    """Of the weights in a model's folder those that have fewer rows than the model, and fit it otherwise.

    Args:
        folder: of a model that Transformers saved.
        misfits: names, with the shape in the folder and that in the model.
    """
    names = [name for name, (rows, *held), (more, *asked) in misfits if rows < more and held == asked]
    index = folder / f"{WEIGHTS}.index.json"
    places = json.loads(index.read_text(encoding="utf-8"))["weight_map"] if names and index.is_file() else {}
    found = {}
    for name in names:
        with safe_open(folder / places.get(name, WEIGHTS), framework="pt") as file:
            found[name] = file.get_tensor(name)
    return found
