"""``bottleneck``: where adapters stand, what they compute, and what the exported file makes of them alone."""

from __future__ import annotations

import ast
import copy
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from ftk import UserError
from tests.plugins.adaptations.test_own_weights import built
from tests.plugins.adaptations.trunks import made

ATTENTION = {
    "llama": "self_attn.o_proj", "gpt2": "attn.c_proj", "bert": "attention.output.dense",
    "t5": "Attention.o", "vit": "attention.o_proj attention.output.dense", "clip": "self_attn.out_proj",
}  # fmt: skip
MLP = {
    "llama": "mlp.down_proj", "gpt2": "mlp.c_proj", "bert": "output.dense", "t5": "DenseReluDense.wo",
    "vit": "mlp.fc2 output.dense", "clip": "mlp.fc2",
}  # fmt: skip
"""The ends of the names behind which adapters stand; a family may have been renamed."""

COUNTS = {"llama": (2, 2), "gpt2": (2, 2), "bert": (2, 2), "t5": (6, 4), "vit": (2, 2), "clip": (5, 5)}
"""Attentions and MLPs of each: T5's decoder has two attentions in a block."""


def inputs_of(family: str) -> dict[str, torch.Tensor]:
    ids, pixels = torch.arange(3, 19).view(2, 8), torch.linspace(-1, 1, 2 * 3 * 8 * 8).view(2, 3, 8, 8)
    if family == "vit":
        return {"pixel_values": pixels}
    if family == "clip":
        return {"input_ids": ids, "pixel_values": pixels}
    return {"input_ids": ids, "decoder_input_ids": ids} if family == "t5" else {"input_ids": ids}


@torch.no_grad()
def computed(family: str, model: Any) -> torch.Tensor:
    found = model(**inputs_of(family))
    return found.logits_per_image if family == "clip" else found.logits


@torch.no_grad()
def shake(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("family", COUNTS)
def test_in_every_family_it_starts_as_the_model_and_the_exported_file_brings_it_back(
    family: str, tmp_path: Path
) -> None:
    plain = made(family)
    part = built("bottleneck", size=5)
    model = part.attach(copy.deepcopy(plain))
    ends = {what: tuple(names[family].split()) for what, names in (("attention", ATTENTION), ("MLP", MLP))}
    places = list(part._places)  # type: ignore[attr-defined]
    attention = [name for name in places if name.endswith(ends["attention"]) and "att" in name.lower()]
    mlp = [name for name in places if name not in attention]
    assert (len(attention), len(mlp)) == COUNTS[family]
    assert all(name.endswith(ends["MLP"]) for name in mlp)
    assert torch.equal(computed(family, model), computed(family, plain))
    shake(model)
    expected = computed(family, model)
    assert (expected - computed(family, plain)).abs().max() > 1e-3
    with part.reference():
        assert torch.equal(computed(family, model), computed(family, plain))
    part.export(tmp_path)
    load_adapter = runpy.run_path(str(tmp_path / "adapter" / "load_adapter.py"))["load_adapter"]
    again = load_adapter(copy.deepcopy(plain), tmp_path / "adapter")
    assert torch.equal(computed(family, again), expected)
    merged = part.merge()
    assert torch.equal(computed(family, merged), computed(family, plain))
    assert merged.state_dict().keys() == plain.state_dict().keys()


def test_the_exported_file_needs_torch_and_transformers_alone(tmp_path: Path) -> None:
    part = built("bottleneck")
    part.attach(made("llama"))
    part.export(tmp_path)
    tree = ast.parse((tmp_path / "adapter" / "load_adapter.py").read_text(encoding="utf-8"))
    nodes = list(ast.walk(tree))
    imported = {alias.name.split(".")[0] for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module).split(".")[0] for node in nodes if isinstance(node, ast.ImportFrom)}
    assert imported - set(sys.stdlib_module_names) == {"torch", "safetensors"}, "transformers brings safetensors"
    told = (tmp_path / "adapter" / "README.md").read_text(encoding="utf-8")
    for fragment in told.split("```python\n")[1:]:
        ast.parse(fragment.partition("```")[0])
    assert "LlamaForCausalLM.from_pretrained" in told


def test_an_adapter_computes_what_the_paper_says() -> None:
    plain = made("llama")
    options = {"style": "pfeiffer", "size": 3, "activation": "tanh", "scale": 0.5, "dropout": 0.25}
    part = built("bottleneck", **options)
    model = part.attach(copy.deepcopy(plain))
    assert [name for name in part._places if "attn" in name] == []  # type: ignore[attr-defined]
    shake(model)
    adapter = model.bottleneck_adapters["model/layers/0/mlp/down_proj"]
    states = torch.randn(4, 16)
    hidden = torch.tanh(states @ adapter.down.weight.T + adapter.down.bias)
    torch.testing.assert_close(adapter(states), states + 0.5 * (hidden @ adapter.up.weight.T + adapter.up.bias))
    assert adapter.down.weight.shape == (3, 16)
    seen: list[torch.Tensor] = []
    layer = model.model.layers[0]
    layer.mlp.register_forward_hook(lambda module, args, output: seen.extend([args[0], output]))
    computed("llama", model)
    torch.testing.assert_close(seen[1], adapter(plain.model.layers[0].mlp(seen[0])), atol=1e-5, rtol=1e-4)
    model.train()
    with torch.no_grad():
        torch.manual_seed(0)
        dropped = adapter(states)
        torch.manual_seed(0)
        kept = nn.functional.dropout(hidden, 0.25)
        torch.testing.assert_close(dropped, states + 0.5 * (kept @ adapter.up.weight.T + adapter.up.bias))


@pytest.mark.parametrize(
    ("name", "function"),
    [("gelu", nn.functional.gelu), ("relu", torch.relu), ("silu", nn.functional.silu), ("tanh", torch.tanh)],
)
def test_the_activation_is_the_one_that_is_named(name: str, function: Any) -> None:
    model = built("bottleneck", size=3, activation=name).attach(made("llama"))
    shake(model)
    adapter, states = next(iter(model.bottleneck_adapters.values())), torch.randn(4, 16)  # type: ignore[union-attr]
    torch.testing.assert_close(adapter(states), states + adapter.up(function(adapter.down(states))))


def test_adapters_are_float32_on_a_model_that_is_not() -> None:
    part = built("bottleneck", size=3)
    model = part.attach(made("llama").bfloat16())
    assert {parameter.dtype for parameter in model.parameters() if parameter.requires_grad} == {torch.float32}
    assert computed("llama", model).dtype == torch.bfloat16


def test_what_is_trained_whole_goes_into_the_adapter_and_out_of_the_model(tmp_path: Path) -> None:
    plain = made("bert")
    part = built("bottleneck", size=3, modules_to_save=("classifier", "*.output.LayerNorm"))
    model = part.attach(copy.deepcopy(plain))
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name for name in trained if not name.startswith("bottleneck")} == {
        name for name, _ in plain.named_parameters() if name.startswith("classifier") or "output.LayerNorm" in name
    }
    groups = part.param_groups(model, 0.1)
    assert {id(p) for group in groups for p in group["params"]} == {
        id(p) for p in model.parameters() if p.requires_grad
    }
    assert all(p.ndim == 2 for group in groups if "weight_decay" not in group for p in group["params"])
    shake(model)
    expected = computed("bert", model)
    with part.reference():
        assert torch.equal(computed("bert", model), computed("bert", plain))
    part.export(tmp_path)
    load_adapter = runpy.run_path(str(tmp_path / "adapter" / "load_adapter.py"))["load_adapter"]
    assert torch.equal(computed("bert", load_adapter(copy.deepcopy(plain), tmp_path / "adapter")), expected)
    assert torch.equal(computed("bert", part.merge()), computed("bert", plain))


def test_targets_choose_and_what_is_not_found_is_told() -> None:
    part = built("bottleneck", targets=("layers.1.self_attn.q_proj", "up_proj"), size=3)
    part.attach(made("llama"))
    assert sorted(part._places) == [  # type: ignore[attr-defined]
        "model.layers.0.mlp.up_proj", "model.layers.1.mlp.up_proj", "model.layers.1.self_attn.q_proj"
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"adaptation\.targets: 'o_prj' matches no linear layer"):
        built("bottleneck", targets=("o_prj",)).attach(made("llama"))
    with pytest.raises(UserError, match=r"adaptation\.modules_to_save: 'hed' matches no module"):
        built("bottleneck", modules_to_save=("hed",)).attach(made("llama"))
    config = transformers.MixtralConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, num_local_experts=2,
    )  # fmt: skip
    with pytest.raises(UserError, match="the blocks of a MixtralForCausalLM have no MLP") as told:
        built("bottleneck").attach(transformers.MixtralForCausalLM(config))
    assert "`targets`" in str(told.value.hint)
