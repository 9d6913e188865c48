"""``prompt`` and ``prefix``: what PEFT makes of the export, by passes, packed rows, caches and answers."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import nn

from ftk import UserError
from ftk.testing import toy_context, toy_task
from tests.core.loops import build
from tests.plugins.adaptations.test_own_weights import built
from tests.plugins.adaptations.trunks import made

IDS = torch.arange(3, 19).view(2, 8)
CHOICES: dict[str, dict[str, Any]] = {
    "prompt": {"tokens": 3},
    "prefix": {"tokens": 3},
    "prefix with a projection": {"tokens": 3, "init": "random", "projection": 5},
}


def attached(choice: str, model: Any) -> tuple[Any, Any]:
    """Attached, and moved from where it starts."""
    part = built(choice.split()[0], **CHOICES[choice])
    torch.manual_seed(1)
    attached = part.attach(model)
    with torch.no_grad():
        for parameter in attached.parameters():
            if parameter.requires_grad:
                parameter += 0.3 * torch.randn(parameter.shape)
    return part, attached


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("choice", CHOICES)
def test_peft_computes_the_same_from_the_export(choice: str, family: str, attention: str, tmp_path: Path) -> None:
    plain = made(family)
    plain.set_attn_implementation(attention)
    part, model = attached(choice, copy.deepcopy(plain))
    part.export(tmp_path)
    with torch.no_grad():
        ours = model(IDS).logits
        greedy = model.generate(IDS, max_new_tokens=6, do_sample=False, pad_token_id=0)
    theirs = PeftModel.from_pretrained(copy.deepcopy(plain), tmp_path / "adapter").eval()
    with torch.no_grad():
        logits = theirs(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits
        written = theirs.generate(
            input_ids=IDS, attention_mask=torch.ones_like(IDS), max_new_tokens=6, do_sample=False, pad_token_id=0
        )
    torch.testing.assert_close(ours, logits[:, -8:], atol=1e-5, rtol=1e-4)
    assert ours.shape == (2, 8, 64)
    assert torch.equal(greedy, written)
    assert (plain(IDS).logits - ours).abs().max() > 1e-2
    with torch.no_grad(), part.reference():
        assert torch.equal(model(IDS).logits, plain(IDS).logits)
    merged = part.merge()
    assert torch.equal(merged(IDS).logits, plain(IDS).logits)
    assert merged.state_dict().keys() == plain.state_dict().keys()
    assert all(parameter.requires_grad for parameter in merged.parameters())


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("choice", CHOICES)
def test_padding_and_a_cache_change_nothing(choice: str, family: str) -> None:
    _, model = attached(choice, made(family))
    short, long = [9, 4, 11], [5, 3, 8, 20, 7]
    padded = torch.tensor([[0, 0, *short], long])
    mask = torch.tensor([[0, 0, 1, 1, 1], [1] * 5])
    with torch.no_grad():
        written = model.generate(padded, attention_mask=mask, max_new_tokens=5, do_sample=False, pad_token_id=0)
        slow = model.generate(
            padded, attention_mask=mask, max_new_tokens=5, do_sample=False, pad_token_id=0, use_cache=False
        )
        for row, prompt in enumerate((short, long)):
            sequence = list(prompt)
            for _ in range(5):
                sequence.append(int(model(torch.tensor([sequence])).logits[0, -1].argmax()))
            assert written[row, 5:].tolist() == sequence[len(prompt) :]
            assert slow[row, 5:].tolist() == sequence[len(prompt) :]


def loss_of(model: nn.Module, items: list[Any], **changes: Any) -> torch.Tensor:
    objective = build("objective", "causal_lm", packing=True, max_length=64)
    return objective.loss(model, objective.collate(items), toy_context(model, objective, **changes)).total


def rows() -> list[Any]:
    objective = build("objective", "causal_lm", packing=False, max_length=64)
    from tests.core.loops import rows as texts

    items = toy_task(texts(3), objective).train.items
    return [{name: array % 64 for name, array in item.items()} for item in (items[0], items[1], items[2])]


@pytest.mark.parametrize("changes", [{}, {"loss_chunks": 3}, {"checkpointing": True}], ids=str)
@pytest.mark.parametrize("choice", list(CHOICES)[1:])
def test_packed_rows_each_see_the_prefix_and_no_other_row(choice: str, changes: dict[str, Any]) -> None:
    changes = dict(changes)
    _, model = attached(choice, made("llama"))
    if changes.pop("checkpointing", False):
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
    objective = build("objective", "causal_lm", packing=True, max_length=64)
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    together = loss_of(model, [objective.join(rows())], **changes)
    gradients = torch.autograd.grad(together, learned)
    apart = sum(loss_of(model, [row]) for row in rows())
    torch.testing.assert_close(together, apart, atol=1e-3, rtol=1e-5)
    for found, expected in zip(gradients, torch.autograd.grad(apart, learned), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


def test_a_prompt_refuses_packed_rows_and_takes_others() -> None:
    _, model = attached("prompt", made("llama"))
    objective = build("objective", "causal_lm", packing=True, max_length=64)
    together, apart = loss_of(model, rows()), sum(loss_of(model, [row]) for row in rows())
    torch.testing.assert_close(loss_of(model, rows(), loss_chunks=3), together, atol=1e-3, rtol=1e-5)
    torch.testing.assert_close(together, apart, atol=1e-3, rtol=1e-5)
    with pytest.raises(UserError, match="rows are packed"):
        loss_of(model, [objective.join(rows())])


def test_where_they_start() -> None:
    plain = made("llama")
    part = built("prompt", tokens=4)
    embeddings = part.attach(copy.deepcopy(plain)).get_parameter("virtual_tokens.embeddings")
    rows = plain.get_input_embeddings().weight
    assert all(any(torch.equal(vector, row) for row in rows) for vector in embeddings)
    wild = built("prompt", tokens=400 // 10, init="random").attach(made("llama"))
    spread = wild.get_parameter("virtual_tokens.embeddings").std()
    assert 0.7 < float((spread / rows.std()).detach()) < 1.3

    torch.manual_seed(3)
    tokens = torch.randint(64, (4,))
    torch.manual_seed(3)
    prefixed = built("prefix", tokens=4).attach(copy.deepcopy(plain))
    with torch.no_grad():
        text = torch.cat([tokens.expand(2, -1), IDS], dim=1)
        torch.testing.assert_close(prefixed(IDS).logits, plain(text).logits[:, 4:], atol=1e-5, rtol=1e-4)
    small = built("prefix", tokens=5, init="random").attach(made("llama"))
    assert float(small.virtual_tokens.entries.detach().std()) == pytest.approx(0.02, rel=0.3)
    with pytest.raises(ValueError, match="starts at random"):
        built("prefix", projection=4)


@pytest.mark.parametrize("name", ["prompt", "prefix"])
def test_what_cannot_be_given_virtual_tokens_is_told(name: str) -> None:
    for family in ("bert", "t5", "vit"):
        with pytest.raises(UserError, match=f"adaptation `{name}` is for decoders"):
            built(name).attach(made(family))
    with pytest.raises(UserError, match=r"adaptation\.tokens: 32 leave nothing of the model's context of 32"):
        built(name, tokens=32).attach(made("gpt2"))
    model = made("llama")
    model.config._attn_implementation_internal = "flex_attention"
    if name == "prefix":
        part = built(name, init="random")
        with pytest.raises(UserError, match="does not go with attention by flex_attention"):
            part.attach(model)(IDS)


@pytest.mark.parametrize("choice", CHOICES)
def test_rows_that_a_table_of_positions_has_no_room_for_are_told(choice: str) -> None:
    part, model = attached(choice, made("gpt2"))
    ids = torch.arange(30)[None]
    with torch.no_grad():
        assert model(ids[:, :29]).logits.shape[1] == 29
        with pytest.raises(
            UserError, match="a row of 30 tokens and 3 virtual ones do not fit the model's 32 positions"
        ):
            model(ids)
        with pytest.raises(UserError, match="a row of 30 tokens"):
            model.generate(ids[:, :26], max_new_tokens=6, do_sample=False, pad_token_id=0, eos_token_id=None)
        with part.reference():
            model(ids)
