"""What [training] changes about a model: each change acts, in training's own forward pass alone, and is undone."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    ViTConfig,
    ViTForImageClassification,
)

from ftk.errors import UserError
from ftk.parts import Batch, Context, Mitigation
from ftk.recipe.training import Training
from ftk.running import switches
from ftk.running.loop import Progress
from ftk.running.switches import Switches, row_lengths
from ftk.testing import toy_context, toy_model
from tests.core.loops import build, make_loop

SMALL: dict[str, Any] = {"num_attention_heads": 2, "intermediate_size": 32, "num_hidden_layers": 1, "hidden_size": 16}


def gpt2() -> Any:
    return AutoModelForCausalLM.from_config(GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=50))


def bert() -> Any:
    return BertForMaskedLM(BertConfig(vocab_size=50, **SMALL))


def context(model: Any, **changes: Any) -> Context:
    return replace(toy_context(model, build("objective", "causal_lm")), **changes)


@contextmanager
def switched(model: Any, **training: Any) -> Iterator[Switches]:
    made = Switches(Training(**training), context(model), list(model.modules()))
    yield made
    made.release()


def numbers(model: Any) -> dict[str, Any]:
    """Everything of a model that is a plain number or text, its configuration's too."""
    owners = {**dict(model.named_modules()), "config": model.config}
    return {
        f"{name}.{key}": value
        for name, owner in owners.items()
        for key, value in vars(owner).items()
        if isinstance(value, int | float | str)
    }


def logits(model: Any, seed: int) -> torch.Tensor:
    torch.manual_seed(seed)
    with torch.no_grad():
        found: torch.Tensor = model(torch.arange(4, 12)[None]).logits
    return found


@pytest.mark.parametrize("make", [toy_model, gpt2, bert])
def test_dropout_overrides_the_models_and_is_undone(make: Any) -> None:
    model = make().train()
    before = numbers(model)
    with switched(model, dropout=0.5):
        assert not torch.equal(logits(model, 0), logits(model, 1))
        assert torch.equal(logits(model, 0), logits(model, 0))
        model.eval()
        assert torch.equal(logits(model, 0), logits(model, 1))
        model.train()
    with switched(model, dropout=0.0):
        assert torch.equal(logits(model, 0), logits(model, 1))
    assert numbers(model) == before


def test_dropout_is_of_the_given_share() -> None:
    model = gpt2().train()
    with switched(model, dropout=0.25):
        dropped = model.transformer.drop(torch.ones(100, 100))
    assert float((dropped == 0).float().mean()) == pytest.approx(0.25, abs=0.02)
    assert float(dropped.max()) == pytest.approx(1 / 0.75)
    assert model.transformer.drop.p == 0.1


def test_what_an_adaptation_adds_keeps_its_own_dropout() -> None:
    model = toy_model()
    own = list(model.modules())
    build("adaptation", "lora", rank=2, dropout=0.4).attach(model)
    made = Switches(Training(dropout=0.1), context(model), own)
    assert {module.p for module in model.modules() if isinstance(module, nn.Dropout)} == {0.4}
    assert model.model.layers[0].self_attn.attention_dropout == 0.1
    made.release()
    assert model.model.layers[0].self_attn.attention_dropout == 0.0


def test_dropout_is_refused_where_nothing_drops_out() -> None:
    with pytest.raises(UserError, match="a Linear cannot drop anything out"):
        Switches(Training(dropout=0.1), context(nn.Linear(2, 2)), [])


def test_attention_is_computed_as_asked_and_as_before_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.llama import modeling_llama

    calls, plain = [], modeling_llama.eager_attention_forward

    def counted(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        return plain(*arguments, **options)

    monkeypatch.setattr(modeling_llama, "eager_attention_forward", counted)
    model = toy_model()
    known = logits(model, 0)
    with switched(model, attention="eager"):
        torch.testing.assert_close(logits(model, 0), known, atol=1e-5, rtol=1e-5)
    assert len(calls) == 2
    with switched(model, attention="sdpa"):
        assert torch.equal(logits(model, 0), known)
    assert torch.equal(logits(model, 0), known)
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, "needs a CUDA device and bf16 or fp16, and this run is on cpu"),
        ({"device": torch.device("cuda")}, "this run computes in fp32"),
        ({"device": torch.device("cuda"), "precision": "bf16"}, 'training.attention = "flash_attention_2": '),
    ],
)
def test_flash_attention_is_refused_with_the_reason(changes: dict[str, Any], reason: str) -> None:
    model = toy_model()
    before = numbers(model)
    with pytest.raises(UserError, match=reason):
        Switches(Training(attention="flash_attention_2"), context(model, **changes), [])
    assert numbers(model) == before


def test_attention_is_refused_where_it_cannot_be_chosen() -> None:
    with pytest.raises(UserError, match="a Linear cannot choose how it computes attention"):
        Switches(Training(attention="eager"), context(nn.Linear(2, 2)), [])


def test_gradient_checkpointing_uses_no_call_that_goes_away() -> None:
    model = toy_model()
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        with switched(model, gradient_checkpointing=True):
            assert model.model.layers[0].gradient_checkpointing
    assert not model.model.layers[0].gradient_checkpointing


def embedded(model: Any, made: Switches, batch: Batch) -> torch.Tensor:
    """The noise that the embedding of a batch gets."""
    ids = batch.inputs["input_ids"]
    with made.around(batch):
        noisy = model.get_input_embeddings()(ids)
    return (noisy - model.get_input_embeddings().weight[ids]).detach()


def test_noise_is_that_of_the_paper() -> None:
    """Uniform in ±alpha/sqrt(L·d) for a row of L tokens and d channels; none on padding."""
    model, ids = toy_model(), torch.arange(40).view(2, 20)
    with switched(model, neftune_noise=5) as made:
        torch.manual_seed(0)
        noise = embedded(model, made, Batch({"input_ids": ids}, 26, 26, (20, 6)))
        torch.manual_seed(0)
        assert torch.equal(embedded(model, made, Batch({"input_ids": ids}, 26, 26, (20, 6))), noise)
        assert not torch.equal(embedded(model, made, Batch({"input_ids": ids}, 26, 26, (20, 6))), noise)
        assert embedded(model, made, Batch({"input_ids": ids}, 40, 40)).abs()[1].max() < 5 / math.sqrt(20 * 32)
    for row, length in ((0, 20), (1, 6)):
        most = 5 / math.sqrt(length * 32)
        scaled = noise[row, :length].flatten() / most
        assert 0.98 < float(scaled.abs().max()) <= 1
        assert float(scaled.square().mean()) == pytest.approx(1 / 3, abs=0.06)
    assert not noise[1, 6:].any()


def test_packed_rows_count_by_themselves() -> None:
    places = torch.tensor([[0, 1, 2, 0, 1, 0, 1, 2], [0, 1, 2, 3, 4, 0, 1, 2]])
    batch = Batch({"input_ids": places, "position_ids": places}, 1, 1, (7, 5))
    assert row_lengths(batch).tolist() == [[3, 3, 3, 2, 2, 2, 2, 0], [5, 5, 5, 5, 5, 0, 0, 0]]


class Looking(Mitigation):
    """Compares the embedding with its weight at every station that sees the model in a step."""

    def __init__(self) -> None:
        self.noisy: list[bool] = []

    def penalty(self, batch: Batch, loss: Any, ctx: Context) -> None:
        table = ctx.model.get_input_embeddings()  # type: ignore[operator]
        ids = batch.inputs["input_ids"]
        self.noisy.append(not torch.equal(table(ids), table.weight[ids]))


def test_noise_is_in_the_pass_that_trains_and_in_no_other() -> None:
    def losses(**training: Any) -> list[float]:
        events: list[Any] = []
        looking = Looking()
        loop = make_loop("lora", {"looking": looking}, events=events, steps=3, micro_batch_size=4, **training)
        made = Switches(loop.options, loop.ctx, [])
        replace(loop, around=made.around).train(Progress())
        made.release()
        assert looking.noisy == [False] * 6
        return [event.data["loss"] for event in events if event.kind == "step"]

    noisy = losses(neftune_noise=10)
    assert losses(neftune_noise=10) == noisy
    assert abs(noisy[0] - losses()[0]) > 1e-4


def test_noise_is_refused_where_there_is_no_embedding_of_tokens() -> None:
    with pytest.raises(UserError, match="a ViTForImageClassification cannot be given noise"):
        Switches(Training(neftune_noise=5), context(ViTForImageClassification(ViTConfig(**SMALL))), [])


@pytest.mark.parametrize("inputs", [{"other": torch.ones(2, 3)}, {"input_ids": torch.ones(2, 4, dtype=torch.long)}])
def test_noise_is_refused_where_a_batch_is_not_embedded_as_it_stands(inputs: dict[str, torch.Tensor]) -> None:
    model = toy_model()
    with switched(model, neftune_noise=5) as made:
        refused = pytest.raises(UserError, match="neftune_noise: the model does not embed the tokens")
        with refused, made.around(Batch(inputs, 1, 1)):
            model(torch.ones(2, 3, dtype=torch.long))


def test_a_compiled_model_trains_to_the_same_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """With all that is between the compiler and one whole graph, and under LoRA.

    The graphs that torch finds are run by themselves here; turning them into machine code takes too long.
    """
    graphs = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(switches, "BACKEND", backend)

    def trained(**training: Any) -> list[torch.Tensor]:
        loop = make_loop("lora", steps=3, neftune_noise=5, gradient_checkpointing=True, **training)
        made = Switches(loop.options, loop.ctx, [])
        compiled = replace(loop, model=made.compiled(loop.model), around=made.around)
        compiled.train(Progress())
        assert not [name for name in dict(loop.ctx.model.named_parameters()) if "_orig_mod" in name]
        made.release()
        return [parameter.detach() for parameter in loop.ctx.model.parameters() if parameter.requires_grad]

    plain = trained()
    assert not graphs
    for ours, theirs in zip(trained(compile=True), plain, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
    assert len(graphs) == 4, "the trial's, and the whole model's until the length of the noise is left open as well"


def test_compiling_is_refused_where_there_is_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def backend(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no C++ compiler found")

    monkeypatch.setattr(switches, "BACKEND", backend)
    with pytest.raises(UserError, match=r"torch cannot compile for cpu here: .*no C"):
        Switches(Training(compile=True), context(toy_model()), [])


def test_what_was_set_before_a_refusal_is_undone() -> None:
    model = ViTForImageClassification(ViTConfig(**SMALL))
    before = numbers(model)
    with pytest.raises(UserError):
        Switches(Training(dropout=0.5, attention="eager", neftune_noise=5), context(model), list(model.modules()))
    assert numbers(model) == before
