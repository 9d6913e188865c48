"""Models of several heads over one body: what is shared, what is a head's own, and what each computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    T5Config,
    T5ForConditionalGeneration,
    T5ForSequenceClassification,
)

from ftk.errors import UserError
from ftk.parts import Head, ModelSource, attention_by
from ftk.parts.heads import Heads
from ftk.running.rehearsal import copy_heads
from ftk_plugins.adaptations.full.full import FullTuning
from ftk_plugins.adaptations.full.options import FullOptions
from ftk_plugins.adaptations.lora.lora import Lora
from ftk_plugins.adaptations.lora.options import LoraOptions

WORDS, NEXT, SPANS, TRUNK = Head("masked_lm"), Head("causal_lm"), Head("seq2seq_lm"), Head("encoder")
ONE, TWO = Head("sequence_classification", ("good", "bad")), Head("sequence_classification", ("new", "old"))
SIZES = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "vocab_size": 40,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
IDS = torch.tensor([[5, 6, 7, 8, 9, 1], [11, 4, 9, 17, 3, 1]])


def bert(*heads: Head) -> dict[Head, Any]:
    kinds = {WORDS: BertForMaskedLM, TRUNK: BertModel}
    return {head: made(kinds.get(head, BertForSequenceClassification), BertConfig(**SIZES), head) for head in heads}


def llama(*heads: Head) -> dict[Head, Any]:
    config = LlamaConfig(**SIZES, num_key_value_heads=1, tie_word_embeddings=True)
    return {
        head: made({NEXT: LlamaForCausalLM}.get(head, LlamaForSequenceClassification), config, head) for head in heads
    }


def gpt2(*heads: Head) -> dict[Head, Any]:
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 40, "bos_token_id": 1, "eos_token_id": 2}
    config = GPT2Config(**sizes, pad_token_id=0)
    return {
        head: made({NEXT: GPT2LMHeadModel}.get(head, GPT2ForSequenceClassification), config, head) for head in heads
    }


def t5(*heads: Head) -> dict[Head, Any]:
    config = T5Config(d_model=16, d_ff=24, num_layers=1, num_heads=2, d_kv=8, vocab_size=40, decoder_start_token_id=0)
    kinds = {SPANS: T5ForConditionalGeneration}
    return {head: made(kinds.get(head, T5ForSequenceClassification), config, head) for head in heads}


def made(kind: Any, config: Any, head: Head) -> Any:
    """A model with weights like no other's."""
    torch.manual_seed(sum(map(ord, f"{head.kind}{head.labels}")))
    return kind(type(config)(**config.to_dict())).eval()


def joined(models: dict[Head, Any], live: Head) -> Heads:
    return Heads(models, live, None, lambda model: ModelSource.body(None, model))  # type: ignore[arg-type]


def out(model: Any) -> torch.Tensor:
    more = {"decoder_input_ids": IDS} if isinstance(model, T5ForConditionalGeneration) else {}
    with torch.no_grad():
        found = model(input_ids=IDS, attention_mask=torch.ones_like(IDS), **more)
    logits: torch.Tensor = found[0]
    return logits


def expected(own: dict[Head, Any], head: Head, body_from: Head, common: Callable[[str], bool]) -> torch.Tensor:
    """What a fresh model gives that has the weights of one body and of one head, put together by name."""
    model, giver = own[head], own[body_from]
    inside = lambda each: f"{each.base_model_prefix}." if each.base_model is not each else ""  # noqa: E731
    given = {name.removeprefix(inside(giver)): tensor for name, tensor in giver.state_dict().items()}
    state = {}
    for name, tensor in model.state_dict().items():
        inner = name.removeprefix(inside(model))
        is_body = name.startswith(inside(model)) and inner in given and common(inner)
        state[name] = given[inner] if is_body else tensor
    model.load_state_dict(state)
    model.tie_weights()
    return out(model)


FAMILIES = [
    (bert, (WORDS, ONE, TWO)), (bert, (ONE, TWO)), (bert, (TRUNK, ONE, WORDS)), (llama, (NEXT, ONE)),
    (gpt2, (NEXT, ONE, TWO)), (t5, (SPANS, ONE)),
]  # fmt: skip


@pytest.mark.parametrize(("family", "heads"), FAMILIES, ids=lambda value: getattr(value, "__name__", ""))
def test_each_model_computes_with_the_live_body_and_its_own_head(family: Any, heads: tuple[Head, ...]) -> None:
    for live in heads:
        found = joined(family(*heads), live)
        for head in heads:
            pooler_is_common = WORDS not in heads
            wanted = expected(
                family(*heads), head, live, lambda name, both=pooler_is_common: both or not name.startswith("pooler")
            )
            torch.testing.assert_close(out(found.models[head]), wanted)


def test_the_body_is_one_and_what_only_some_have_is_their_own() -> None:
    found = joined(bert(WORDS, ONE, TWO), WORDS)
    words, one, two = (found.models[head] for head in (WORDS, ONE, TWO))
    assert words.bert.encoder is one.bert.encoder is two.bert.encoder
    assert one.bert.pooler is not two.bert.pooler, "a pooler that one head lacks belongs to each of the others"
    assert words.cls.predictions.decoder.weight is words.bert.embeddings.word_embeddings.weight
    for turned in (found.turned(ONE), found.turned(ONE).turned(TWO).turned(WORDS).turned(ONE)):
        assert turned.model is one
        assert words.bert.embeddings is one.bert.embeddings
        assert words.cls.predictions.decoder.weight is one.bert.embeddings.word_embeddings.weight
        asks = {name for name, p in one.named_parameters() if p.requires_grad}
        assert asks == {name for name, _ in one.named_parameters()}
        resting = [*words.cls.predictions.transform.parameters(), *two.classifier.parameters()]
        assert not any(parameter.requires_grad for parameter in resting)
    alike = joined(bert(ONE, TWO), ONE)
    assert alike.models[ONE].bert is alike.models[TWO].bert, "where all heads have a pooler, it is of the body"


def test_a_weight_of_the_body_has_one_name_and_a_heads_own_is_like_no_other() -> None:
    found = joined(bert(TRUNK, ONE, TWO), ONE)
    layer = "encoder.layer.0.output.dense.weight"
    assert found.common_name(f"bert.{layer}") == layer == found.turned(TRUNK).common_name(layer)
    names = {each.common_name("classifier.weight") for each in (found, found.turned(TWO))}
    assert len(names) == 2
    only = joined(bert(ONE), ONE)
    assert only.common_name(f"bert.{layer}") == f"bert.{layer}", "in a run of one head nothing is renamed"


@pytest.mark.parametrize("family", [bert, llama], ids=["bert", "llama"])
def test_an_adapter_acts_under_every_head_until_it_is_merged(family: Any) -> None:
    other = WORDS if family is bert else NEXT
    found = joined(family(ONE, other), ONE)
    adaptation = Lora(LoraOptions(rank=2))
    before = out(found.models[other])
    found = found.following(adaptation.attach(found.model))
    torch.testing.assert_close(out(found.models[other]), before)
    for name, parameter in found.model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_()
    moved = out(found.models[other])
    assert not torch.allclose(moved, before)
    with adaptation.reference():
        torch.testing.assert_close(out(found.models[other]), before)
    found = found.following(adaptation.merge())
    torch.testing.assert_close(out(found.models[other]), moved, atol=1e-5, rtol=1e-4)
    assert not any("lora" in name for model in found.models.values() for name, _ in model.named_modules())


def test_what_training_moves_is_seen_by_the_others_and_their_heads_rest() -> None:
    found = joined(bert(ONE, WORDS), ONE)
    adaptation = FullTuning(FullOptions())
    found = found.following(adaptation.attach(found.model))
    words = found.models[WORDS]
    loss = nn.functional.cross_entropy(words(input_ids=IDS).logits.flatten(0, 1), IDS.flatten())
    loss.backward()
    asked = {name for name, parameter in words.named_parameters() if parameter.grad is not None}
    assert asked
    assert all(name.startswith("bert.") for name in asked)
    assert all(drift.weight.grad is None for name, drift in adaptation.drift().items() if "classifier" in name)
    by_name = dict(found.model.named_parameters())
    assert by_name["bert.embeddings.word_embeddings.weight"].grad is not None


def test_copies_share_their_body_as_the_models_do() -> None:
    found = joined(bert(WORDS, ONE), WORDS)
    copies = copy_heads(found, lambda tensor: torch.empty_like(tensor, device="meta"))
    words, one = copies.models[WORDS], copies.models[ONE]
    assert one.bert.encoder is words.bert.encoder is not found.model.bert.encoder
    assert words.cls.predictions.decoder.weight is one.bert.embeddings.word_embeddings.weight
    assert {tensor.device.type for model in (words, one) for tensor in model.parameters()} == {"meta"}
    assert copies.turned(ONE).model is one


def test_attention_is_chosen_for_layers_that_came_with_another_head() -> None:
    found = joined(bert(WORDS, ONE), WORDS).turned(ONE)
    seen: list[str] = []
    layer = found.model.bert.encoder.layer[0].attention.self
    with attention_by(found.model, "eager"):
        seen.append(layer.config._attn_implementation)
    assert [*seen, layer.config._attn_implementation] == ["eager", "sdpa"]


class Plain(nn.Module):
    def __init__(self, width: int, classes: int, hidden: int = 4) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(width, hidden), nn.ReLU())
        self.outer = nn.Linear(hidden, classes)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.outer(self.inner(rows))
        return logits


def test_a_plain_module_needs_a_source_that_tells_its_body() -> None:
    rows = torch.randn(5, 3)
    models = {ONE: Plain(3, 2), TWO: Plain(3, 2)}
    with pytest.raises(UserError, match=r"the labels good, bad would be learned over another task's") as caught:
        joined(dict(models), ONE)
    assert "`body`" in caught.value.hint
    with pytest.raises(UserError, match="the models for the heads of this run have not one body: outer differs"):
        joined({ONE: Plain(3, 2), TWO: Plain(3, 5)}, ONE)
    found = Heads({ONE: Plain(3, 2), TWO: Plain(3, 5)}, ONE, None, lambda model: model.inner)
    one, two = found.models[ONE], found.models[TWO]
    assert one.inner is two.inner
    torch.testing.assert_close(two(rows), two.outer(one.inner(rows)))
    with pytest.raises(UserError, match="not one body: 0 differs"):
        Heads({ONE: Plain(3, 2), TWO: Plain(3, 2, hidden=6)}, ONE, None, lambda model: model.inner)
