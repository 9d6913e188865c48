"""Where blocks are, in the families that recipes name: the height of each weight above the output."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest
from torch import nn

from ftk import UserError
from ftk.testing import toy_model
from ftk_plugins.adaptations.blocks import heights_of, stacks_of
from tests.plugins.adaptations.trunks import FAMILIES, made

EXPECTED: dict[str, dict[str, int]] = {
    "timm": {"*_embed*": 3, "blocks.0.*": 2, "blocks.1.*": 1, "scale": 0, "head.*": 0},
    "gpt2": {"transformer.wte*": 3, "transformer.wpe*": 3, "*.h.0.*": 2, "*.h.1.*": 1, "*.ln_f.*": 0},
    "llama": {"*embed_tokens*": 3, "*.layers.0.*": 2, "*.layers.1.*": 1, "model.norm.*": 0, "lm_head.*": 0},
    "bert": {
        "bert.embeddings.*": 3, "*.layer.0.*": 2, "*.layer.1.*": 1, "bert.pooler.*": 0, "classifier.*": 0,
    },
    "t5": {
        "shared.*": 3, "*coder.block.0.*": 2, "*coder.block.1.*": 1, "*coder.final_layer_norm.*": 0,
    },
    "vit": {
        "*embeddings*": 3, "*layer*.0.*": 2, "*layer*.1.*": 1, "vit.layernorm.*": 0, "classifier.*": 0,
    },
    "clip": {
        "text_model.embeddings*": 3, "text_model.*.layers.0.*": 2, "text_model.*.layers.1.*": 1,
        "text_model.final_layer_norm*": 0, "vision_model.embeddings*": 4, "vision_model.pre_layrnorm*": 4,
        "vision_model.*.layers.0.*": 3, "vision_model.*.layers.2.*": 1, "vision_model.post_layernorm*": 0,
        "*_projection.*": 0, "logit_scale": 0, "vision_model.*.layers.1.*": 2,
    },
}  # fmt: skip
"""By family, and by patterns that cover its weights: how high they stand."""


@pytest.mark.parametrize("family", FAMILIES)
def test_each_weight_stands_where_it_stands(family: str) -> None:
    model = made(family)
    heights = heights_of(model, "toy")
    for name, parameter in model.named_parameters():
        told = {height for pattern, height in EXPECTED[family].items() if fnmatchcase(name, pattern)}
        assert {heights[parameter]} == told, name
    assert heights.keys() == set(model.parameters())


def test_a_tied_output_layer_is_an_embedding_and_one_block_is_a_stack() -> None:
    model = toy_model(num_hidden_layers=1)
    heights = heights_of(model, "toy")
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert heights[model.lm_head.weight] == 2
    assert heights[model.model.norm.weight] == 0


def test_experts_within_a_block_are_no_stack_and_kinds_may_alternate() -> None:
    class Block(nn.Module):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.experts = nn.ModuleList([nn.Sequential(nn.Linear(size, size)) for _ in range(5)])

    class Other(Block):
        pass

    model = nn.ModuleDict({
        "stem": nn.ModuleList([nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.Linear(2, 2))]),
        "layers": nn.ModuleList([Block(8), Other(8), Block(8), Other(8)]),
    })  # fmt: skip
    assert list(stacks_of(model)) == ["layers"], "what holds next to nothing is no stack"
    assert len(stacks_of(model)["layers"]) == 4


def test_a_model_without_blocks_is_told() -> None:
    with pytest.raises(UserError, match="adaptation `partial`: Linear has no stack of blocks"):
        heights_of(nn.Linear(2, 2), "partial")
