"""The model `perceptron`: a module that knows nothing of transformers, and how it is saved and loaded."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ftk import UserError
from ftk.parts import Head, Loaded, ModelSource
from ftk_digits.options import PerceptronOptions

PIXELS, DIGITS = 64, 10


class Perceptron(nn.Module):
    """From pixels ``(rows, 1, 64)`` to logits ``(rows, 10)``."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.body = nn.Sequential(
            nn.Flatten(), nn.Linear(PIXELS, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()
        )
        self.head = nn.Linear(hidden, DIGITS)

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(pixels))
        return logits


class PerceptronSource(ModelSource):
    """Random weights, drawn by the recipe's seed; nothing has to be done to the rows, so there is no processor."""

    def __init__(self, options: PerceptronOptions) -> None:
        self.options = options

    def load(self, head: Head, corpus: Callable[[], Iterator[str]]) -> Loaded:
        if len(head.labels) != DIGITS:
            raise UserError("`perceptron` tells ten digits apart", "use the objective `pixel_classes`")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch.initial_seed())  # wherever the generator stands by now
            return Loaded(Perceptron(self.options.hidden).eval(), None)

    def save(self, model: Any, processor: Any, folder: Path, state: Mapping[str, Tensor] | None = None) -> None:
        tensors = model.state_dict() if state is None else state
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps({"hidden": model.hidden}), encoding="utf-8")

    def load_folder(self, folder: Path, head: Head) -> Loaded:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        model = Perceptron(**config)
        model.load_state_dict(load_file(folder / "model.safetensors"))
        return Loaded(model.eval(), None)

    def body(self, model: Any) -> nn.Module:
        body: nn.Module = model.body
        return body

    def how_to_load(self) -> str:
        return (
            "`model.safetensors` holds the weights, `config.json` the size:\n\n```python\n"
            "from safetensors.torch import load_file\nfrom ftk_digits.perceptron import Perceptron\n\n"
            f"model = Perceptron(hidden={self.options.hidden})\n"
            'model.load_state_dict(load_file("path/to/this/folder/model.safetensors"))\n```'
        )
