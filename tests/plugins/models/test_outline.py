"""Outlines: the modules and the processor of a model whose weights are not read, and need not be there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ftk import UserError
from ftk.parts import Head
from ftk_plugins.models.pretrained.options import PretrainedOptions
from ftk_plugins.models.pretrained.pretrained import Pretrained
from ftk_plugins.models.scratch.options import ScratchOptions
from ftk_plugins.models.scratch.scratch import Scratch
from tests.plugins.models.sources import CAUSAL, CLASSES, load


def no_texts() -> Iterator[str]:
    return iter(())


def outline(path: Path, head: Head = CAUSAL, **options: Any) -> Any:
    return Pretrained(PretrainedOptions(path=str(path), **options)).outline(head, no_texts)


def shapes(model: Any) -> dict[str, Any]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in model.named_parameters()}


@pytest.fixture
def weightless(llama: Path, tmp_path: Path) -> Path:
    """The folder without its weights."""
    return Path(shutil.copytree(llama, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors")))


@pytest.mark.parametrize("head", [CAUSAL, CLASSES], ids=["causal_lm", "classes"])
def test_it_has_the_tensors_of_the_model_and_no_values(head: Head, llama: Path, weightless: Path) -> None:
    found = outline(weightless, head)
    assert shapes(found.model) == shapes(load(llama, head).model)
    assert {tensor.device.type for tensor in found.model.state_dict().values()} == {"meta"}
    assert not found.model.training


@pytest.mark.parametrize(("dtype", "expected"), [("auto", torch.float32), ("bfloat16", torch.bfloat16)])
def test_its_type_is_the_recipes(dtype: str, expected: torch.dtype, weightless: Path) -> None:
    assert {tensor.dtype for tensor in outline(weightless, dtype=dtype).model.parameters()} == {expected}


def test_attention_is_chosen_as_for_the_model(weightless: Path) -> None:
    assert outline(weightless, attention="eager").model.config._attn_implementation == "eager"


def test_loading_still_wants_weights(weightless: Path) -> None:
    with pytest.raises(UserError, match="no weights in safetensors"):
        load(weightless)


def test_without_a_configuration_there_is_nothing_to_outline(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no config"):
        outline(tmp_path)


def test_a_new_model_of_any_size_costs_nothing() -> None:
    texts = ["what a model reads decides its tokens"] * 2
    options = ScratchOptions(hidden_size=16384, layers=4, heads=128, vocabulary_size=300)
    model = Scratch(options).outline(CAUSAL, lambda: iter(texts)).model
    assert sum(tensor.numel() for tensor in model.parameters()) > 1e10
    assert {tensor.device.type for tensor in model.parameters()} == {"meta"}
