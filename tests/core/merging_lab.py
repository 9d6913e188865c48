"""Small models and adapters on disk, for tests of `ftk merge`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from click.testing import CliRunner, Result
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor

from ftk.cli import cli
from ftk.testing import toy_model, toy_tokenizer


def save_model(folder: Path, seed: int, size: float = 0.05, **settings: Any) -> dict[str, Tensor]:
    """Save the toy model with noise of ``seed`` on its weights, and its tokenizer; returns the weights."""
    model = toy_model()
    for key, value in settings.items():
        setattr(model.config, key, value)
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += size * torch.randn(parameter.shape, generator=noise)
    model.save_pretrained(folder)
    toy_tokenizer().save_pretrained(folder)
    return weights(folder)


def save_adapter(folder: Path, base: Path, seed: int, **settings: Any) -> dict[str, Tensor]:
    """Save a LoRA adapter with random factors; returns the base's weights with it merged in by PEFT."""
    torch.manual_seed(seed)
    config = LoraConfig(**{
        "r": 3, "lora_alpha": 6, "target_modules": ["q_proj", "down_proj"], "init_lora_weights": False, **settings,
    })  # fmt: skip
    model = toy_model()
    model.load_state_dict(weights(base), strict=False)
    model.tie_weights()
    adapted = get_peft_model(model, config)
    for name, parameter in adapted.named_parameters():
        if "modules_to_save" in name:
            parameter.data += 0.1
    adapted.save_pretrained(str(folder))
    whole = adapted.merge_and_unload()
    return {name: tensor.clone() for name, tensor in whole.state_dict().items()}


def weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a saved model."""
    found: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= load_file(file)
    return found


def rewrite(folder: Path, change: dict[str, Tensor | None]) -> None:
    """Change, add or (with None) take away tensors of a saved model."""
    tensors = {**weights(folder), **change}
    kept = {name: tensor.contiguous() for name, tensor in tensors.items() if tensor is not None}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def in_two_files(folder: Path) -> None:
    """Cut a saved model into two files with an index."""
    tensors = weights(folder)
    (folder / "model.safetensors").unlink()
    names, weight_map = sorted(tensors), {}
    for number, some in enumerate((names[::2], names[1::2]), start=1):
        file = f"model-{number:05d}-of-00002.safetensors"
        save_file({name: tensors[name] for name in some}, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(some, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def merge(*arguments: str | Path) -> Result:
    """Run ``ftk merge`` in this process."""
    return CliRunner().invoke(cli, ["merge", *map(str, arguments)])
