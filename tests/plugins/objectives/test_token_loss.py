"""The loss in chunks against the loss from all logits, and label smoothing against its formula."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

from ftk.testing import toy_model
from ftk_plugins.objectives import token_loss
from ftk_plugins.objectives.chunked import chunked_cross_entropy
from ftk_plugins.objectives.token_loss import LateLogits
from tests.plugins.objectives.chunked_losses import CONFIGS, assert_same, batch_of, loss_of, made
from tests.plugins.objectives.text_rows import encoded


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("name", ["llama", "llama, tied", *CONFIGS])
def test_chunks_give_the_loss_and_the_gradients_of_the_textbook(name, smoothing):
    model = made(name).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(5)  # so that a cap caps
    found = loss_of(model, 4, label_smoothing=smoothing)
    assert isinstance(found.outputs, LateLogits)
    _, batch = batch_of()
    logits = model(batch.inputs["input_ids"]).logits[:, :-1].flatten(0, 1)
    labels = batch.inputs["labels"][:, 1:].flatten()
    expected = cross_entropy(logits, labels, ignore_index=-100, reduction="sum", label_smoothing=smoothing)
    assert_same(model, SimpleNamespace(total=expected), found)
    torch.testing.assert_close(found.outputs["logits"], logits[labels != -100], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("chunks", [2, 3, 50, 1000])
def test_any_number_of_chunks_is_the_same(chunks):
    model = toy_model()
    assert_same(model, loss_of(model, 1), loss_of(model, chunks))


def test_a_pass_that_counts_nothing_is_cut_as_well():
    model = toy_model()
    _, batch = batch_of()
    found = loss_of(model, 3, replace(batch, count=0))
    assert isinstance(found.outputs, LateLogits)
    torch.testing.assert_close(found.total, loss_of(model, 1).total)
    hidden, weight = torch.ones(0, 4, requires_grad=True), torch.ones(9, 4, requires_grad=True)
    none = chunked_cross_entropy(hidden, weight, None, torch.ones(0, dtype=torch.long), chunks=3)
    assert none.item() == 0
    assert not torch.autograd.grad(none, weight)[0].any()


def test_an_output_layer_with_a_bias():
    torch.manual_seed(0)
    hidden, weight, bias = (torch.randn(shape, requires_grad=True) for shape in ((11, 8), (30, 8), (30,)))
    labels = torch.randint(30, (11,))
    expected = cross_entropy(hidden @ weight.T + bias, labels, reduction="sum")
    found = chunked_cross_entropy(hidden, weight, bias, labels, chunks=3)
    torch.testing.assert_close(found, expected)
    inputs = (hidden, weight, bias)
    torch.testing.assert_close(torch.autograd.grad(found, inputs), torch.autograd.grad(expected, inputs))


def test_packed_rows_under_lora_leave_the_frozen_output_layer_alone():
    part, rows = encoded()
    _, batch = batch_of(part.join(rows[:2]), part.join([rows[2], rows[1]]))
    torch.manual_seed(0)
    model = get_peft_model(
        toy_model(), LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    )
    found = loss_of(model, 3, batch)
    assert isinstance(found.outputs, LateLogits)
    assert_same(model, loss_of(model, 1, batch), found)
    assert model.get_base_model().lm_head.weight.grad is None


def test_autocast_multiplies_as_it_does_with_all_logits():
    model = toy_model()
    whole, chunked = (loss_of(model, chunks, precision="bf16") for chunks in (1, 3))
    assert chunked.outputs["logits"].dtype == torch.bfloat16
    assert torch.equal(chunked.outputs["logits"], whole.outputs["logits"])
    torch.testing.assert_close(whole.total, chunked.total, rtol=1e-6, atol=0)
    assert_same(model, whole, chunked, rtol=2e-2)


def test_the_gradient_of_the_weight_is_summed_in_float32():
    """Two hundred chunks of a bfloat16 model are no further from float32 than one product in bfloat16 is."""
    torch.manual_seed(0)
    hidden, weight = torch.randn(400, 16), torch.randn(64, 16)
    labels = torch.randint(64, (400,))

    def error(chunks):
        half = weight.bfloat16().requires_grad_()
        chunked_cross_entropy(hidden.bfloat16(), half, None, labels, chunks=chunks).backward()
        exact = half.detach().float().requires_grad_()
        cross_entropy(hidden.bfloat16().float() @ exact.T, labels, reduction="sum").backward()
        return float((half.grad.float() - exact.grad).norm() / exact.grad.norm())

    assert error(200) < 1.2 * error(1)


def test_whoever_reads_the_logits_is_served():
    model = toy_model()

    def penalised(chunks):
        found = loss_of(model, chunks)
        return SimpleNamespace(total=found.total + found.outputs["logits"].logsumexp(1).square().sum())

    assert_same(model, penalised(1), penalised(3))
    outputs = loss_of(model, 3).outputs
    assert sorted(outputs) == ["labels", "logits", "row_nats", "row_targets"]
    assert len(outputs) == 4
    assert outputs["logits"] is outputs["logits"]
    with pytest.raises(KeyError):
        outputs["attentions"]


class Largest(TorchDispatchMode):
    """Remembers the number of elements of the largest tensor that is made."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.elements = max(self.elements, out.numel())
        return out


@pytest.mark.parametrize("chunks", [2, 3, 8])
def test_no_more_logits_are_there_than_one_chunk_has(chunks):
    model = toy_model(vocab_size=4000)
    _, rows = encoded()
    _, batch = batch_of(rows[0], rows[2], rows[0], rows[2])
    assert batch.count > 3 * 32
    loss_of(model, chunks, batch)  # finds out what the model does to its logits
    with Largest() as whole:
        loss_of(model, 1, batch).total.backward()
    assert whole.elements >= batch.count * 4000
    with Largest() as largest:
        loss_of(model, chunks, batch).total.backward()
    assert largest.elements == max(-(-batch.count // chunks), 32) * 4000  # never less than the weight of 32 channels


def test_chunks_are_taken_where_many_logits_would_be(monkeypatch):
    model = toy_model()
    _, batch = batch_of()
    assert not isinstance(loss_of(model, None).outputs, LateLogits)
    sizes = []
    monkeypatch.setattr(token_loss, "AUTO_LOGITS", batch.count * 260 // 3)
    monkeypatch.setattr(
        token_loss,
        "chunked_cross_entropy",
        lambda *a, chunks, **k: (sizes.append(chunks), chunked_cross_entropy(*a, chunks=chunks, **k))[1],
    )
    assert_same(model, loss_of(model, 1), loss_of(model, None))
    assert sizes == [math.ceil(batch.count * 260 / (batch.count * 260 // 3))]
    with torch.no_grad():
        torch.testing.assert_close(loss_of(model, None).total, loss_of(model, 1).total)


def test_the_gradient_can_be_taken_once():
    model = toy_model()
    total = loss_of(model, 3).total
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match=r"training\.loss_chunks = 1"):
        total.backward()


def test_a_compiled_model_is_compiled_once_for_all_its_steps():
    import torch._dynamo.testing as dynamo

    model = toy_model().train()
    counter = dynamo.CompileCounterWithBackend("eager")
    compiled = torch.compile(model, backend=counter)
    assert_same(model, loss_of(model, 1), loss_of(model, 3, call=compiled))
    loss_of(model, 3, call=compiled)
    assert counter.frame_count == 1


def test_gradients_are_exchanged_as_with_all_logits(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        model = toy_model().train()
        exchanged = torch.nn.parallel.DistributedDataParallel(model)
        seen = []
        exchanged.register_comm_hook(None, lambda state, bucket: seen.append(1) or _whole(bucket))
        found = loss_of(model, 3, call=exchanged)
        total = found.total + found.outputs["logits"].square().sum()
        plain = loss_of(model, 1)
        assert_same(
            model,
            SimpleNamespace(total=plain.total + plain.outputs["logits"].square().sum()),
            SimpleNamespace(total=total),
        )
        assert seen
    finally:
        torch.distributed.destroy_process_group()


def _whole(bucket):
    done = torch.futures.Future()
    done.set_result(bucket.buffer())
    return done


@pytest.mark.parametrize("chunks", [1, 3])
def test_smoothing_holds_in_training_alone(chunks):
    model = toy_model()
    with torch.no_grad():
        model.lm_head.weight.mul_(20)
    plain = loss_of(model.eval(), chunks, label_smoothing=0.2)
    smoothed = loss_of(model.train(), chunks, label_smoothing=0.2)
    logits, labels = plain.outputs["logits"], plain.outputs["labels"]
    torch.testing.assert_close(plain.total, cross_entropy(logits, labels, reduction="sum"))
    expected = cross_entropy(logits, labels, reduction="sum", label_smoothing=0.2)
    torch.testing.assert_close(smoothed.total, expected, rtol=1e-5, atol=0)
    assert float((smoothed.total - plain.total).detach().abs()) > 0.5
