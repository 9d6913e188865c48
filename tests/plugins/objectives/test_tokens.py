"""What all token objectives share, against brute force: padding, loss, draws, packed rows."""

import copy
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from ftk import UserError
from ftk.parts import Batch
from ftk.testing import toy_model
from ftk_plugins.objectives.token_loss import target_logits
from tests.plugins.objectives.text_rows import CTX, TOKENIZER, brute_force, encoded, objective


def test_padding_changes_no_rows_loss():
    model, (part, items) = toy_model(), encoded()
    batch = part.collate(items)
    assert batch.inputs["input_ids"].shape == (3, 51)
    assert batch.tokens == sum(len(item["input_ids"]) for item in items)
    loss = part.loss(model, batch, CTX)
    expected = torch.stack([brute_force(model, item) for item in items])
    torch.testing.assert_close(loss.total, expected.sum())
    rows = np.repeat(np.arange(3), [len(item["labels"]) - 1 for item in items])
    each = cross_entropy(loss.outputs["logits"], loss.outputs["labels"], reduction="none")
    for row in range(3):
        torch.testing.assert_close(each[torch.from_numpy(rows == row)].sum(), expected[row])
    assert loss.count == batch.count == len(rows) == len(loss.outputs["labels"])


def test_only_target_positions_go_through_the_output_layer():
    model, (part, items) = toy_model(), encoded()
    for item in items:
        item["labels"] = item["labels"].copy()
        item["labels"][:-3] = -100
    seen = []
    model.lm_head.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    loss = part.loss(model, part.collate(items), CTX)
    assert seen == [(3, 9, 260)]
    assert loss.outputs["logits"].shape == (9, 260)
    torch.testing.assert_close(loss.total, sum(brute_force(model, item) for item in items))


def test_gradients_are_those_of_the_textbook_loss():
    model, (part, items) = toy_model(), encoded()
    part.loss(model, part.collate(items), CTX).total.backward()
    found = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    sum(brute_force(model, item) for item in items).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-4, atol=1e-4)


def test_a_bfloat16_model_is_summed_in_float32():
    model, (part, items) = toy_model().bfloat16(), encoded()
    loss = part.loss(model, part.collate(items), CTX)
    assert loss.total.dtype == torch.float32
    assert loss.outputs["logits"].dtype == torch.bfloat16
    expected = cross_entropy(loss.outputs["logits"].float(), loss.outputs["labels"], reduction="sum")
    torch.testing.assert_close(loss.total, expected)


class Plain(torch.nn.Module):
    """A model whose forward knows neither `logits_to_keep` nor `position_ids` nor `use_cache`."""

    def __init__(self):
        super().__init__()
        self.inner = toy_model()

    def forward(self, input_ids):
        return SimpleNamespace(logits=self.inner(input_ids).logits)


def test_a_model_that_gives_all_logits_has_the_same_loss():
    part, items = encoded()
    batch = part.collate(items)
    torch.testing.assert_close(
        part.loss(Plain(), batch, CTX).total, part.loss(toy_model(), batch, CTX).total, rtol=1e-5, atol=1e-3
    )


def test_wrapped_and_adapted_models_keep_their_signature():
    from peft import LoraConfig, get_peft_model

    part, items = encoded()
    batch = part.collate(items)
    expected = part.loss(toy_model(), batch, CTX).total
    adapted = get_peft_model(toy_model(), LoraConfig(r=2, target_modules=["q_proj"]))
    seen = []
    adapted.get_base_model().lm_head.register_forward_hook(lambda m, i, output: seen.append(output.shape[1]))
    torch.testing.assert_close(part.loss(adapted, batch, CTX).total, expected)
    assert seen == [50]


def test_virtual_tokens_before_the_row_do_not_move_the_targets():
    from peft import PromptTuningConfig, get_peft_model

    part, items = encoded()
    config = PromptTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM")
    model = get_peft_model(toy_model(), config).eval()
    expected = sum(
        cross_entropy(
            model(torch.tensor(item["input_ids"][None].astype(np.int64))).logits[0, 4:-1],
            torch.tensor(item["labels"][1:].astype(np.int64)),
            reduction="sum",
        )
        for item in items
    )
    torch.testing.assert_close(part.loss(model, part.collate(items), CTX).total, expected)


def test_draws_follow_the_models_prediction_at_targets_alone():
    model, part = toy_model(), objective()
    with torch.no_grad():
        model.lm_head.weight.mul_(20)
    item = part.encode({"text": "ab"}, TOKENIZER)
    item["labels"] = np.array([-100, -100, item["input_ids"][2]], dtype=np.int32)
    batch = part.collate([item] * 4000)
    drawn = part.draw_targets(model, batch, torch.Generator().manual_seed(1))
    labels = drawn.inputs["labels"]
    assert (labels[:, :2] == -100).all()
    assert (drawn.inputs["input_ids"] == batch.inputs["input_ids"]).all()
    assert (batch.inputs["labels"][:, 2] == TOKENIZER.eos_token_id).all()
    shares = torch.bincount(labels[:, 2], minlength=260) / 4000
    expected = model(batch.inputs["input_ids"][:1]).logits[0, 1].softmax(-1).detach()
    assert expected.max() > 0.05
    assert (shares - expected).abs().max() < 5 * math.sqrt(expected.max() / 4000)
    again = part.draw_targets(model, batch, torch.Generator().manual_seed(1))
    assert (again.inputs["labels"] == labels).all()


def adapted(model, method):
    """The model as it stands in the middle of its training, by ``full`` or ``lora``."""
    if method == "lora":
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    return model.train()


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_rows_do_not_see_each_other(attention, method):
    model, (part, items) = adapted(toy_model(attn_implementation=attention), method), encoded()
    other = copy.deepcopy(items[0])
    other["input_ids"][:] = 77
    # Two blocks of different lengths, so that padding stands behind a packed row.
    before, after = (
        part.collate([part.join([first, items[1], items[2]]), part.join([items[1], items[1]])])
        for first in (items[0], other)
    )
    start = len(items[0]["input_ids"])
    old, new = (
        model(batch.inputs["input_ids"], position_ids=batch.inputs["position_ids"], use_cache=False).logits
        for batch in (before, after)
    )
    assert (old[0, :start] - new[0, :start]).abs().max() > 1e-3
    torch.testing.assert_close(old[:, start:], new[:, start:], rtol=0, atol=1e-6)
    expected = sum(brute_force(model, item) for item in (*items, items[1], items[1]))
    torch.testing.assert_close(part.loss(model, before, CTX).total, expected, rtol=1e-5, atol=1e-3)


def test_flash_attention_gets_packed_rows_in_one_row(monkeypatch):
    model, (part, items) = toy_model(), encoded()
    batch = part.collate([part.join([items[0], items[1]]), part.join([items[2], items[1]])])
    expected = part.loss(model, batch, CTX)
    shapes = []
    model.model.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(kwargs["input_ids"].shape), with_kwargs=True
    )
    # The name alone decides how rows are laid out; the arithmetic stays that of sdpa.
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    for table in (ALL_MASK_ATTENTION_FUNCTIONS, ALL_ATTENTION_FUNCTIONS):
        monkeypatch.setitem(table._global_mapping, "toy_flash", table["sdpa"])
    model.config._attn_implementation = "toy_flash"
    found = part.loss(model, batch, CTX)
    assert shapes == [(1, 2 * batch.inputs["input_ids"].shape[1])]
    torch.testing.assert_close(found.total, expected.total)
    torch.testing.assert_close(found.outputs["logits"], expected.outputs["logits"], rtol=1e-4, atol=1e-5)


def test_packed_and_plain_rows_share_a_batch():
    model, (part, items) = toy_model(), encoded()
    batch = part.collate([part.join([items[0], items[1]]), items[2]])
    expected = sum(brute_force(model, item) for item in items)
    torch.testing.assert_close(part.loss(model, batch, CTX).total, expected, rtol=1e-5, atol=1e-3)


def test_a_model_without_position_ids_refuses_packed_rows():
    part, items = encoded()
    with pytest.raises(UserError, match="packing = false"):
        target_logits(Plain(), part.collate([part.join(items)]))


def test_a_batch_without_targets_has_the_loss_zero():
    part, items = encoded()
    batch = part.collate(items)
    empty = Batch({**batch.inputs, "labels": torch.full_like(batch.inputs["labels"], -100)}, 0, batch.tokens)
    loss = part.loss(toy_model(), empty, CTX)
    assert loss.total == 0
    loss.total.backward()
