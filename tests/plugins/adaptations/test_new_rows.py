"""New tokens whose rows alone are trained: what moves, by which gradients, what is exported and what is refused."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM, Gemma3ForCausalLM, Gemma3TextConfig

from ftk import UserError
from ftk.testing import toy_model
from ftk_plugins.adaptations.lora.options import LoraOptions
from tests.plugins.adaptations.effective import attached, shake, weights_of

IDS = (250, 251, 252)
TOKENS = torch.tensor([[3, 250, 5, 252, 7], [251, 4, 4, 250, 9]])


def marked(model: Any) -> Any:
    model.new_token_ids = IDS
    return model


def toy_bert() -> Any:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=260, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4, pad_token_id=0
    )
    model = BertForMaskedLM(config).eval()
    with torch.no_grad():
        model.cls.predictions.bias.normal_()
    return model


def toy_gemma() -> Any:
    """Its embedding scales what it looks up."""
    torch.manual_seed(0)
    config = Gemma3TextConfig(
        vocab_size=260, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, tie_word_embeddings=True,
    )  # fmt: skip
    return Gemma3ForCausalLM(config).eval()


MODELS = {
    "tied": toy_model,
    "untied": lambda: toy_model(tie_word_embeddings=False),
    "bert": toy_bert,
    "gemma": toy_gemma,
}


def tables_of(model: nn.Module) -> list[str]:
    """The names of the embedding and of the output layer, where that is another weight."""
    inner, output = model.get_input_embeddings().weight, model.get_output_embeddings().weight  # type: ignore[operator]
    return [name for name, p in model.named_parameters() if p is inner or p is output]


def with_rows(plain: Any, rows: dict[str, Tensor]) -> Any:
    """A copy of the plain model in which some rows of these tables have been written over: what is to be computed."""
    other = copy.deepcopy(plain)
    with torch.no_grad():
        for name, values in rows.items():
            other.get_parameter(name)[IDS[0] : IDS[-1] + 1] = values
    return other


@pytest.mark.parametrize("kind", MODELS)
def test_the_model_computes_with_the_rows_and_only_they_get_gradients(kind: str) -> None:
    plain = marked(MODELS[kind]())
    adaptation, model = attached("lora", copy.deepcopy(plain), rank=2, new_tokens=True)
    rows = {n: p for n, p in model.named_parameters() if n.endswith("new_rows")}
    tables = {f"{name.removesuffix('.new_rows')}.weight": p for name, p in rows.items()}
    assert sorted(tables) == sorted(tables_of(plain))
    assert all(p.shape == (3, 32) and p.requires_grad for p in rows.values())
    with torch.no_grad():
        for parameter in rows.values():
            parameter.normal_()
    expected = with_rows(plain, tables)
    torch.testing.assert_close(model(TOKENS).logits, expected(TOKENS).logits, atol=2e-6, rtol=1e-5)
    model(TOKENS).logits.square().sum().backward()
    expected(TOKENS).logits.square().sum().backward()
    for name, parameter in tables.items():
        wanted = expected.get_parameter(name).grad[IDS[0] : IDS[-1] + 1]
        torch.testing.assert_close(parameter.grad, wanted, atol=1e-4 * float(wanted.abs().max()), rtol=1e-4)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {*rows, *(name for name in trained if "lora_" in name)}
    groups = adaptation.param_groups(model, 0.5)
    assert [set(map(id, rows.values())) == set(map(id, g["params"])) for g in groups] == [False, True]
    assert (groups[-1]["weight_decay"], groups[-1]["lr"]) == (0.0, 0.5)


@pytest.mark.parametrize("use", ["lora", "dora"])
@pytest.mark.parametrize("kind", ["tied", "untied"])
def test_training_moves_these_rows_and_no_other_bit(use: str, kind: str, tmp_path: Path) -> None:
    plain = marked(MODELS[kind]())
    adaptation, model = attached(use, copy.deepcopy(plain), rank=2, new_tokens=True)
    optimizer = torch.optim.AdamW(adaptation.param_groups(model, 1e-2), weight_decay=0.1)
    for _ in range(2):
        nn.functional.cross_entropy(model(TOKENS).logits[:, :-1].flatten(0, 1), TOKENS[:, 1:].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
    shake(model)
    trained, drifts = model(TOKENS).logits, weights_of(adaptation)
    with torch.no_grad(), adaptation.reference():
        assert torch.equal(model(TOKENS).logits, plain(TOKENS).logits)
    assert torch.equal(model(TOKENS).logits, trained)

    adaptation.export(tmp_path)
    loaded = PeftModel.from_pretrained(copy.deepcopy(plain), tmp_path / "adapter").eval()
    torch.testing.assert_close(loaded(TOKENS).logits, trained, atol=3e-6, rtol=1e-5)

    names = list(plain.state_dict())
    merged = adaptation.merge()
    assert list(merged.state_dict()) == names
    assert not any(module._forward_hooks for module in merged.modules())
    torch.testing.assert_close(merged(TOKENS).logits, trained, atol=3e-6, rtol=1e-5)
    for name in tables_of(plain):
        moved = merged.get_parameter(name) - plain.get_parameter(name)
        torch.testing.assert_close(drifts[name], moved, atol=1e-6, rtol=0)
        others = [row for row in range(260) if row not in IDS]
        assert torch.equal(merged.get_parameter(name)[others], plain.get_parameter(name)[others])
        assert (moved[list(IDS)].abs().amax(1) > 1e-3).all()


def test_the_chain_rule_reaches_their_rows_whatever_the_ranges() -> None:
    adaptation, model = attached("lora", marked(toy_model()), rank=2, new_tokens=True)
    name = tables_of(marked(toy_model()))[0]
    rows = next(p for n, p in model.named_parameters() if n.endswith("new_rows"))
    shake(model)
    adaptation.scale(0.5)
    drift = adaptation.drift()[name]
    assert list(drift.chunks()) == [(250, 253)]
    assert list(drift.chunks(40)) == [(250, 251), (251, 252), (252, 253)]
    slopes = torch.randn(260, 32)
    for start, stop in ((0, 100), (100, 251), (251, 252), (252, 260)):
        drift.pull_back(start, stop, slopes[start:stop])
    torch.testing.assert_close(rows.grad, 0.5 * slopes[250:253])  # half of it counts, so half comes back
    whole = drift.rows(0, 260)
    torch.testing.assert_close(whole[250:253], 0.5 * (rows.detach() - drift.weight[250:253]))
    assert torch.equal(drift.rows(240, 256), whole[240:256])
    assert not whole[:250].any()
    assert not whole[253:].any()


def test_they_are_scaled_with_the_adapters_and_come_back() -> None:
    plain = marked(toy_model())
    adaptation, model = attached("lora", copy.deepcopy(plain), rank=2, new_tokens=True)
    shake(model)
    trained, whole = model(TOKENS).logits, weights_of(adaptation)
    saved = {name: tensor.clone() for name, tensor in adaptation.state_dict().items()}
    adaptation.scale(0.25)
    for name, rows in weights_of(adaptation).items():
        torch.testing.assert_close(rows, 0.25 * whole[name], atol=1e-6, rtol=1e-5)
    quarter = model(TOKENS).logits
    adaptation.scale(0.0)
    assert torch.equal(model(TOKENS).logits, plain(TOKENS).logits)
    adaptation.scale(1.0)
    assert torch.equal(model(TOKENS).logits, trained)
    adaptation.scale(0.25)
    torch.testing.assert_close(adaptation.merge()(TOKENS).logits, quarter, atol=3e-6, rtol=1e-5)
    again, restored = attached("lora", copy.deepcopy(plain), rank=2, new_tokens=True)
    again.load_state_dict(saved)
    assert torch.equal(restored(TOKENS).logits, trained)


def test_rows_over_a_bfloat16_model_are_float32() -> None:
    adaptation, model = attached("lora", marked(toy_model().to(torch.bfloat16)), rank=2, new_tokens=True)
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    shake(model)
    logits = model(TOKENS).logits
    torch.testing.assert_close(adaptation.merge()(TOKENS).logits.float(), logits.float(), atol=0.03, rtol=0.05)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UserError, match="the model has no new tokens"):
        attached("lora", toy_model(), new_tokens=True)
    with pytest.raises(UserError, match="embed_tokens is adapted or trained whole by another option"):
        attached("lora", marked(toy_model()), new_tokens=True, modules_to_save=["embed_tokens"])
    untied = marked(toy_model(tie_word_embeddings=False))
    with pytest.raises(UserError, match="lm_head is adapted or trained whole by another option"):
        attached("lora", untied, new_tokens=True, targets=["lm_head"])
    model = marked(toy_model())

    class Shifted(nn.Embedding):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input) + 1

    model.model.embed_tokens.__class__ = Shifted
    with pytest.raises(UserError, match="a Shifted, does more than to look up vectors"):
        attached("lora", model, new_tokens=True)
    assert LoraOptions(new_tokens=True).withheld() == ("sharding", "input-subspace")
    assert LoraOptions(new_tokens=True).more_needs() == ("new-tokens",)
