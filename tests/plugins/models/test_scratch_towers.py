"""CLIP from `scratch`: both towers as asked for, a processor that reads both, loaded again by Transformers alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, CLIPModel

from ftk import UserError
from ftk.parts import Head
from ftk_plugins.models.scratch.options import ScratchOptions
from ftk_plugins.models.scratch.scratch import Scratch
from tests.plugins.models.small_scratch import make

TEXTS = ["a red circle", "two blue squares and a large green ring", "nothing"]
PICTURES = [Image.fromarray(np.random.default_rng(n).integers(0, 256, (16, 12, 3), np.uint8)) for n in range(3)]
SMALL: dict[str, Any] = {
    "architecture": "clip", "hidden_size": 16, "layers": 1, "heads": 2, "vocabulary_size": 300, "max_length": 12,
    "config": {"projection_dim": 8, "vision_config": {"image_size": 16, "patch_size": 8}},
}  # fmt: skip


def corpus() -> Iterator[str]:
    return iter(TEXTS)


def clip(**options: Any) -> Any:
    return Scratch(ScratchOptions(**{**SMALL, **options})).load(Head("encoder"), corpus)


def told(loaded: Any, texts: list[str] = TEXTS) -> Any:
    inputs = loaded.processor(text=texts, images=PICTURES[: len(texts)], return_tensors="pt", padding=True)
    with torch.no_grad():
        return loaded.model(**inputs)


def test_both_towers_have_the_sizes_asked_for() -> None:
    config = clip(layers=2, intermediate_size=40, config={**SMALL["config"], "text_config": {"hidden_act": "gelu"}})
    config = config.model.config
    for tower in (config.text_config, config.vision_config):
        sizes = (tower.hidden_size, tower.num_hidden_layers, tower.num_attention_heads, tower.intermediate_size)
        assert sizes == (16, 2, 2, 40)
        assert tower.projection_dim == config.projection_dim == 8
    assert (config.text_config.hidden_act, config.vision_config.hidden_act) == ("gelu", "quick_gelu")
    assert (config.text_config.max_position_embeddings, config.vision_config.image_size) == (12, 16)


def test_a_text_is_read_at_its_end_token_whatever_fills_it_up() -> None:
    loaded = clip()
    tokenizer = loaded.processor.tokenizer
    first, *_, last = tokenizer("a red circle").input_ids
    assert (first, last) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert loaded.model.config.text_config.eos_token_id == last
    assert tokenizer.model_max_length == 12
    torch.testing.assert_close(told(loaded).text_embeds[0], told(loaded, TEXTS[:1]).text_embeds[0])
    assert (told(loaded).text_embeds[0] - told(loaded).text_embeds[1]).abs().max() > 0.01


def test_what_it_saves_loads_without_ftk_and_comes_back_bit_for_bit(tmp_path: Path) -> None:
    loaded = clip(seed=5)
    loaded.model.save_pretrained(tmp_path)
    loaded.processor.save_pretrained(tmp_path)
    model, processor = CLIPModel.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)
    inputs = processor(text=TEXTS, images=PICTURES, return_tensors="pt", padding=True)
    assert inputs["pixel_values"].shape == (3, 3, 16, 16)
    with torch.no_grad():
        scores = model(**inputs).logits_per_image
    torch.testing.assert_close(scores, told(loaded).logits_per_image)
    again = Scratch(ScratchOptions(**SMALL)).load_folder(tmp_path, Head("encoder"))
    assert all(torch.equal(weight, again.model.state_dict()[name]) for name, weight in model.state_dict().items())
    assert torch.equal(told(again).logits_per_image, told(loaded).logits_per_image)


def test_an_outline_has_the_shapes_and_no_weights() -> None:
    outline = Scratch(ScratchOptions(**SMALL)).outline(Head("encoder"), corpus).model
    shapes = {name: weight.shape for name, weight in clip().model.state_dict().items()}
    assert {name: weight.shape for name, weight in outline.state_dict().items()} == shapes
    assert {weight.device.type for weight in outline.parameters()} == {"meta"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kv_heads": 1}, "model.kv_heads: `clip` has no such size"),
        ({"tie_embeddings": True}, "model.tie_embeddings: `clip` has no such size"),
        ({"config": {"image_size": 16}}, "model.config.image_size: `clip` has no such key"),
        ({"config": {"vision_config": {"patch": 8}}}, "model.config.vision_config.patch: `clip` has no such key"),
        ({"config": {"vision_config": {"projection_dim": 8}}}, "projection_dim: it is that of both towers"),
        ({"config": {"text_config": {"vocab_size": 8}}}, "text_config.vocab_size: the tokenizer decides it"),
        ({"config": {"text_config": 8}}, "model.config.text_config: it is the table of a tower"),
        ({"config": {"vision_config": {"image_size": [16, 8]}}}, "image_size = .* is no whole number"),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        clip(**options)


def test_a_tokenizer_that_writes_no_end_is_refused(tmp_path: Path) -> None:
    make().processor.save_pretrained(tmp_path)
    options = {name: value for name, value in SMALL.items() if name != "vocabulary_size"}
    with pytest.raises(UserError, match="reads a text at its end token"):
        Scratch(ScratchOptions(**options, tokenizer=str(tmp_path))).load(Head("encoder"), corpus)
