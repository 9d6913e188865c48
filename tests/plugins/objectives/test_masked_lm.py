"""The objective `masked_lm`: what is masked and how often, against transformers' collator; its loss, by hand."""

from __future__ import annotations

from functools import lru_cache, partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tokenizers.processors import TemplateProcessing
from torch.nn.functional import cross_entropy
from transformers import BertConfig, BertForMaskedLM, DataCollatorForLanguageModeling, RobertaConfig, RobertaForMaskedLM

from ftk import UserError
from ftk.parts import lengths_of
from ftk.testing import toy_context, toy_examples, toy_model, toy_tokenizer
from ftk_plugins.objectives.framed import FramedCodec
from ftk_plugins.objectives.masked_lm.masked_lm import MaskedLM
from ftk_plugins.objectives.masked_lm.options import MaskedLMOptions

TOKENIZER = toy_tokenizer("masked_lm")
MASK, START, END = TOKENIZER.mask_token_id, TOKENIZER.convert_tokens_to_ids("<|start|>"), TOKENIZER.eos_token_id
ROWS = [{"text": text} for text in ("The sea is wide.", "Salt.", "The river runs down to the sea, and on.", "Rain")]
CTX = toy_context(torch.nn.Linear(1, 1), None)


def make(**options: Any) -> MaskedLM:
    return MaskedLM(MaskedLMOptions(**options))


def drawn(part: MaskedLM, text: str, seed: int = 0) -> dict[str, np.ndarray]:
    return part.vary(part.encode({"text": text}, TOKENIZER), TOKENIZER, np.random.default_rng(seed))


@lru_cache
def counted(**options: Any) -> SimpleNamespace:
    """Many draws of one text: how large the shares are of what is masked, random and kept."""
    part, ids = make(**options), np.array(TOKENIZER("ab" * 100)["input_ids"])
    items = [drawn(part, "ab" * 100, seed) for seed in range(300)]
    labels, read = (np.stack([item[name] for item in items]) for name in ("labels", "input_ids"))
    return tally(labels, read, ids)


def tally(labels: np.ndarray, read: np.ndarray, ids: np.ndarray) -> SimpleNamespace:
    target = labels != -100
    assert (np.broadcast_to(ids, labels.shape)[target] == labels[target]).all(), "a label is the token that stood there"
    assert (np.broadcast_to(ids, read.shape)[~target] == read[~target]).all(), "nothing else is changed"
    assert not target[:, [0, -1]].any(), "the tokens around a text are no targets"
    return SimpleNamespace(
        targets=target[:, 1:-1].mean(),
        masked=(read[target] == MASK).mean(),
        kept=(read[target] == labels[target]).mean(),
        read=read[target],
    )


def test_shares_are_those_of_the_papers_and_of_transformers_collator() -> None:
    own = counted()
    assert (own.targets, own.masked, own.kept) == pytest.approx((0.15, 0.8, 0.1), abs=0.01)
    ids = TOKENIZER("ab" * 100)["input_ids"]
    torch.manual_seed(0)
    batch = DataCollatorForLanguageModeling(TOKENIZER)([{"input_ids": ids}] * 300)
    other = tally(batch["labels"].numpy(), batch["input_ids"].numpy(), np.array(ids))
    for name in ("targets", "masked", "kept"):
        assert getattr(own, name) == pytest.approx(getattr(other, name), abs=0.015), name


def test_random_tokens_are_any_plain_ones() -> None:
    own = counted(probability=1.0, mask_share=0.0, random_share=1.0)
    codec = FramedCodec(TOKENIZER)
    assert set(own.read) == set(codec.plain), "60,000 draws from 256 tokens miss none, and no special one is drawn"
    counts = np.bincount(own.read)[codec.plain]
    assert counts.std() / counts.mean() < 0.1, "evenly"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"probability": 0.4}, (0.4, 0.8, 0.1)),
        ({"mask_share": 1.0, "random_share": 0.0}, (0.15, 1.0, 0.0)),
        ({"mask_share": 0.3, "random_share": 0.2}, (0.15, 0.3, 0.5)),
        ({"mask_share": 0.0, "random_share": 0.0}, (0.15, 0.0, 1.0)),
    ],
)
def test_every_share_can_be_chosen(options: dict[str, float], expected: tuple[float, ...]) -> None:
    own = counted(**options)
    assert (own.targets, own.masked, own.kept) == pytest.approx(expected, abs=0.012)


def test_shares_of_more_than_the_whole_are_refused() -> None:
    with pytest.raises(ValidationError, match="shares of the same targets"):
        make(mask_share=0.8, random_share=0.3)


def test_a_short_row_has_a_target_and_another_draw_another() -> None:
    items = [drawn(make(), "abc", seed) for seed in range(60)]
    targets = np.stack([item["labels"] != -100 for item in items])
    assert (targets.sum(1) >= 1).all()
    assert (targets[:, 1:4].mean(0) > 0.2).all(), "no place is left out"


def test_special_tokens_in_a_text_are_never_masked() -> None:
    part = make(probability=1.0, mask_share=1.0, random_share=0.0)
    item = drawn(part, "a<|end|>b<|mask|>")
    assert TOKENIZER.convert_ids_to_tokens(item["input_ids"]) == [
        "<|start|>", "<|mask|>", "<|end|>", "<|mask|>", "<|mask|>", "<|end|>",
    ]  # fmt: skip
    assert (item["labels"] != -100).tolist() == [False, True, False, True, False, False]
    with pytest.raises(UserError, match="no token that could be masked"):
        part.encode({"text": "<|end|>"}, TOKENIZER)


def test_whole_words_are_masked_or_left() -> None:
    text = "the longest words of all are here"
    part = make(whole_words=True, mask_share=1.0, random_share=0.0, probability=0.3)
    words = part.encode({"text": text}, TOKENIZER)["words"]
    assert len(set(words.tolist())) == 7
    shares = []
    for seed in range(300):
        target = drawn(part, text, seed)["labels"][1:-1] != -100
        by_word = [target[words == word] for word in range(7)]
        assert all(each.all() or not each.any() for each in by_word)
        shares.append([each.any() for each in by_word])
    assert np.mean(shares, axis=0) == pytest.approx(np.full(7, 0.31), abs=0.08), "0.3, and one where none was drawn"
    alone = drawn(make(mask_share=1.0, random_share=0.0, probability=0.3), text)["labels"][1:-1] != -100
    assert any(0 < alone[words == word].sum() < (words == word).sum() for word in range(7))


def test_the_loss_is_cross_entropy_at_the_targets() -> None:
    part, model = make(), toy_model(head="masked_lm")
    items = list(toy_examples(ROWS, part, TOKENIZER).items)
    batch = part.collate(items)
    assert batch.inputs["attention_mask"].sum(1).tolist() == [len(item["input_ids"]) for item in items]
    loss = part.loss(model, batch, CTX)
    expected = []
    for item in items:
        logits = model(torch.from_numpy(item["input_ids"])[None].long()).logits[0]
        expected.append(cross_entropy(logits, torch.from_numpy(item["labels"]).long(), reduction="sum"))
    torch.testing.assert_close(loss.total, torch.stack(expected).sum())
    assert loss.count == batch.count == sum(int((item["labels"] != -100).sum()) for item in items)
    assert len(loss.outputs["labels"]) == loss.count


def test_draws_come_from_the_prediction_at_the_mask() -> None:
    part, model = make(probability=1.0), toy_model(head="masked_lm")
    (item,) = toy_examples([{"text": "x" * 200}], part, TOKENIZER).items
    batch = part.collate([item] * 8)
    with torch.no_grad():
        model.cls.predictions.bias.zero_()
        model.cls.predictions.bias[[40, 70]] = 30.0
    drawn = part.draw_targets(model, batch, torch.Generator().manual_seed(0))
    labels = drawn.inputs["labels"]
    assert torch.equal(labels == -100, batch.inputs["labels"] == -100)
    assert set(labels[labels != -100].tolist()) == {40, 70}
    assert torch.equal(drawn.inputs["input_ids"], batch.inputs["input_ids"])


def test_windows_are_framed_and_no_longer_than_asked() -> None:
    part = make(max_length=10)
    items = toy_examples([{"text": "abcdefghijklmnopqrst"}, {"text": "uvw"}], part, TOKENIZER).items
    assert lengths_of(items).tolist() == [10, 10, 6, 5]
    for item, length in zip(items, (10, 10, 6, 5), strict=True):
        assert len(item["input_ids"]) == length
        assert (item["input_ids"][0], item["input_ids"][-1]) == (START, END)
    (cut,) = toy_examples(
        [{"text": "abcdefghijklmnopqrst"}], make(max_length=10, long_rows="truncate"), TOKENIZER
    ).items
    assert len(cut["input_ids"]) == 10


def roberta(**sizes: Any) -> Any:
    torch.manual_seed(0)
    return RobertaForMaskedLM(
        RobertaConfig(
            vocab_size=262,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=64,
            max_position_embeddings=100,
            pad_token_id=0,
            bos_token_id=None,
            eos_token_id=1,
            **sizes,
        )
    ).eval()


MODELS = {
    "bert": partial(toy_model, head="masked_lm"),
    "bert, eager": partial(toy_model, head="masked_lm", attn_implementation="eager"),
    "roberta, whose positions begin behind the padding": roberta,
}


@pytest.mark.parametrize("name", MODELS)
def test_packed_rows_are_predicted_as_if_alone(name: str) -> None:
    model = MODELS[name]()
    plain, joined = (
        toy_examples(ROWS * 3, make(packing=packing, max_length=64), TOKENIZER) for packing in (False, True)
    )
    assert len(joined.items) < len(plain.items)
    losses = [part.objective.loss(model, part.objective.collate(list(part.items)), CTX) for part in (plain, joined)]
    assert losses[0].count == losses[1].count
    torch.testing.assert_close(losses[1].total, losses[0].total)
    assert not model.training


class Deaf(BertForMaskedLM):
    """Reads a mask for whole rows only."""

    def forward(self, input_ids=None, attention_mask=None, position_ids=None, **kwargs):
        mask = attention_mask if attention_mask is None or attention_mask.ndim == 2 else None
        return super().forward(input_ids=input_ids, attention_mask=mask, position_ids=position_ids, **kwargs)


def test_a_model_that_cannot_keep_packed_rows_apart_is_refused() -> None:
    part = make(packing=True)
    batch = part.collate(list(toy_examples(ROWS, part, TOKENIZER).items))
    sizes = {"vocab_size": 262, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
    deaf = Deaf(BertConfig(**sizes, intermediate_size=32, max_position_embeddings=100))
    with pytest.raises(
        UserError, match="Deaf cannot keep packed rows apart: it gives packed rows other predictions"
    ) as caught:
        part.loss(deaf, batch, CTX)
    assert "set `packing = false`" in str(caught.value)
    local = toy_model(head="masked_lm")
    local.config.local_attention = 16
    with pytest.raises(UserError, match="look at a window of positions"):
        part.loss(local, batch, CTX)


def test_a_tokenizer_without_a_mask_or_with_a_long_frame_is_refused() -> None:
    with pytest.raises(UserError, match="no mask token"):
        make().encode({"text": "abc"}, toy_tokenizer())
    long = toy_tokenizer("masked_lm")
    long.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|start|> <|start|> $A <|end|>", special_tokens=[("<|start|>", START), ("<|end|>", END)]
    )
    with pytest.raises(UserError, match="puts 3 tokens around a text"):
        make().encode({"text": "abc"}, long)


def test_rows_from_the_cache_are_varied_by_an_objective_that_has_encoded_nothing() -> None:
    item = make().encode({"text": "The sea is wide."}, TOKENIZER)
    one, other = (make().vary(item, TOKENIZER, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(one["input_ids"], other["input_ids"])


def test_logits_are_made_at_the_targets_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    part, model = make(), toy_model(head="masked_lm")
    batch = part.collate(list(toy_examples(ROWS, part, TOKENIZER).items))
    weight, rows = model.cls.predictions.decoder.weight, []
    linear = torch.nn.functional.linear

    def counted(hidden: torch.Tensor, by: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        if by is weight:
            rows.append(hidden.shape[:-1].numel())
        return linear(hidden, by, bias)

    monkeypatch.setattr(torch.nn.functional, "linear", counted)
    losses = []
    for chunks in (1, None):
        loss = part.loss(model, batch, toy_context(model, part, loss_chunks=chunks))
        losses.append((loss.total, torch.autograd.grad(loss.total, list(model.parameters()), allow_unused=True)))
    assert rows == [batch.inputs["input_ids"].numel(), batch.count], "all that the model makes by itself; the targets"
    for one, other in zip((losses[0][0], *losses[0][1]), (losses[1][0], *losses[1][1]), strict=True):
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
