"""Models, batches and comparisons that the tests of the loss in chunks share."""

import torch
from transformers import AutoModelForCausalLM, CohereConfig, Gemma2Config, GPT2Config, GraniteConfig

from ftk.testing import toy_context, toy_model
from tests.plugins.objectives.text_rows import encoded

SIZES = {
    "vocab_size": 259, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 2, "head_dim": 16, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1,
}  # fmt: skip


CONFIGS = {
    "gpt2, tied": GPT2Config(vocab_size=259, n_embd=32, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=1),
    "gemma2, capped": Gemma2Config(**SIZES, final_logit_softcapping=1.5),
    "granite, divided": GraniteConfig(**SIZES, logits_scaling=0.13),
    "cohere, multiplied": CohereConfig(**SIZES, logit_scale=3.0),
}


def made(name):
    torch.manual_seed(0)
    if name in CONFIGS:
        return AutoModelForCausalLM.from_config(CONFIGS[name])
    return toy_model(vocab_size=259, tie_word_embeddings=name == "llama, tied")


def batch_of(*items):
    part, rows = encoded()
    return part, part.collate(items or rows)


def loss_of(model, chunks, batch=None, call=None, **changes):
    part, whole = batch_of()
    ctx = toy_context(model, part, loss_chunks=chunks, **changes)
    with ctx.autocast():
        return part.loss(model if call is None else call, batch or whole, ctx)


def gradients(model, total):
    model.zero_grad()
    total.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_same(model, one, other, rtol=1e-5):
    """Two losses are equal, and so are their gradients relative to the largest of each weight."""
    torch.testing.assert_close(one.total, other.total, rtol=rtol, atol=0)
    first = {name: g.clone() for name, g in gradients(model, one.total * 0.3).items()}
    second = gradients(model, other.total * 0.3)
    assert first.keys() == second.keys()
    for name, gradient in first.items():
        # A key's bias has no gradient but rounding.
        scale = max(float(gradient.abs().max()), 1e-4)
        torch.testing.assert_close(second[name] / scale, gradient / scale, rtol=0, atol=rtol, msg=name)
