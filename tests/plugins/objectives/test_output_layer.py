"""Which output layers' logits may be made in chunks, and who else hears of them."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaForCausalLM

from ftk import UserError
from ftk.testing import toy_context, toy_model, toy_task
from ftk_plugins.mitigations.ewc.fisher import Estimate, estimate_fisher
from ftk_plugins.objectives import token_loss
from ftk_plugins.objectives.output_layer import Unsuitable, tap_of
from ftk_plugins.objectives.token_loss import LateLogits
from tests.plugins.objectives.chunked_losses import assert_same, loss_of, made
from tests.plugins.objectives.text_rows import encoded


def test_finding_out_changes_neither_the_model_nor_the_random_state():
    model = made("gpt2, tied").train()
    torch.manual_seed(3)
    whole = loss_of(model, 1)
    torch.manual_seed(3)
    assert_same(model, whole, loss_of(model, 3))
    assert "forward" not in model.lm_head.__dict__
    torch.testing.assert_close(loss_of(model.eval(), 1).total, loss_of(model, 3).total)


class Masked(LlamaForCausalLM):
    """Never writes token 7, as models do that keep some tokens to themselves."""

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.logits[..., 7] = torch.finfo(output.logits.dtype).min
        return output


class Shifted(LlamaForCausalLM):
    """Adds a bias to one token's logit."""

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.logits = output.logits + torch.arange(output.logits.shape[-1]).eq(9) * 0.5
        return output


class Narrowed(LlamaForCausalLM):
    """Leaves the last tokens out."""

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.logits = output.logits[..., :-4]
        return output


def adapted_output_layer():
    return get_peft_model(toy_model(), LoraConfig(r=2, target_modules=["lm_head"]))


def trained_copy():
    return get_peft_model(toy_model(), LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"]))


@pytest.mark.parametrize(
    "make",
    [*(lambda kind=kind: kind(toy_model().config) for kind in (Masked, Shifted, Narrowed)),
     adapted_output_layer, trained_copy],
)  # fmt: skip
def test_what_is_no_plain_output_layer_keeps_all_its_logits(make, monkeypatch):
    torch.manual_seed(0)
    model = make()
    whole = loss_of(model, 1)
    with pytest.raises(UserError, match="cannot be computed in chunks") as caught:
        loss_of(model, 2)
    assert "training.loss_chunks" in str(caught.value)
    monkeypatch.setattr(token_loss, "AUTO_LOGITS", 100)
    found = loss_of(model, None)
    assert not isinstance(found.outputs, LateLogits)
    assert_same(model, whole, found)


def test_a_trial_that_fails_is_a_reason():
    def broken():
        raise RuntimeError("no such thing")

    with pytest.raises(Unsuitable, match="no such thing"):
        tap_of(toy_model(), broken)


def test_whoever_listens_to_the_output_layer_hears_its_calls():
    model, seen = toy_model(), []
    model.lm_head.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    loss_of(model, 3)
    assert seen == [(3, 50, 260)]


def test_whoever_listens_to_the_model_hears_its_logits():
    """As FSDP does, whose hooks gather and drop weights around the calls."""
    model, seen = toy_model(), []
    model.register_forward_hook(lambda module, inputs, output: seen.append(output.logits.shape))
    loss_of(model, 3)
    assert seen == [(3, 50, 260)]


@pytest.mark.parametrize("tied", [True, False])
def test_the_fisher_information_is_the_same(tied):
    model, events = toy_model(tie_word_embeddings=tied), []
    part, _ = encoded()
    task = toy_task([{"text": text} for text in ("The sea is wide.", "Salt.", "Birds know.")], part)
    weights = dict(model.named_parameters())
    found = [
        estimate_fisher(
            task, toy_context(model, part, loss_chunks=chunks, events=events), weights,
            Estimate(samples=3, batch_size=2),
        )
        for chunks in (1, 3)
    ]  # fmt: skip
    for name, diagonal in found[0].parts.items():
        assert torch.equal(found[1].parts[name], diagonal), name
    assert not [event for event in events if event.kind == "warning"]
