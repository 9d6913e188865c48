"""Tiny models of the families whose blocks must be found, with random weights and two blocks in each stack."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import nn

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def gpt2() -> Any:
    config = transformers.GPT2Config(vocab_size=64, n_positions=32, n_embd=16, n_layer=2, n_head=2)
    return transformers.GPT2LMHeadModel(config)


def llama(tied: bool = False, labels: int = 0) -> Any:
    config = transformers.LlamaConfig(
        vocab_size=64, num_key_value_heads=1, tie_word_embeddings=tied, num_labels=labels or 2, pad_token_id=0, **SIZES
    )
    return (transformers.LlamaForSequenceClassification if labels else transformers.LlamaForCausalLM)(config)


def bert() -> Any:
    return transformers.BertForSequenceClassification(
        transformers.BertConfig(vocab_size=64, max_position_embeddings=32, **SIZES)
    )


def bert_masked() -> Any:
    return transformers.BertForMaskedLM(transformers.BertConfig(vocab_size=64, max_position_embeddings=32, **SIZES))


def t5() -> Any:
    config = transformers.T5Config(
        vocab_size=64, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_decoder_layers=2, num_heads=2,
        decoder_start_token_id=0,
    )  # fmt: skip
    return transformers.T5ForConditionalGeneration(config)


def vit() -> Any:
    return transformers.ViTForImageClassification(
        transformers.ViTConfig(image_size=8, patch_size=4, num_labels=3, **SIZES)
    )


def clip() -> Any:
    text = {**SIZES, "vocab_size": 64, "max_position_embeddings": 16, "eos_token_id": 63}
    image = {**SIZES, "num_hidden_layers": 3, "image_size": 8, "patch_size": 4}
    return transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=image, projection_dim=8))


def timm() -> Any:
    """Position table and class token held by the model itself, blocks in a ``Sequential``."""
    trunk = nn.Module()
    trunk.patch_embed = nn.Conv2d(3, 16, 4)
    trunk.pos_embed, trunk.scale = nn.Parameter(torch.zeros(1, 4, 16)), nn.Parameter(torch.ones(()))
    trunk.blocks = nn.Sequential(*(nn.Sequential(nn.Sequential(nn.Linear(16, 16))) for _ in range(2)))
    trunk.head = nn.Linear(16, 3)
    return trunk


FAMILIES = {"timm": timm, "gpt2": gpt2, "llama": llama, "bert": bert, "t5": t5, "vit": vit, "clip": clip}


def made(family: str, **options: Any) -> Any:
    """A model of a family, the same each time, in ``eval`` mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return {**FAMILIES, "bert_masked": bert_masked}[family](**options).eval()
