"""The objective `denoising`: how much is hidden and where, what puts a damaged text together again, and its loss."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.nn.functional import cross_entropy
from transformers import BartConfig, BartForConditionalGeneration

from ftk import UserError
from ftk.parts import lengths_of
from ftk.testing import toy_context, toy_examples, toy_model, toy_task, toy_tokenizer
from ftk_plugins.evaluators.perplexity.options import PerplexityOptions
from ftk_plugins.evaluators.perplexity.perplexity import Perplexity
from ftk_plugins.objectives.denoising.denoising import Denoising
from ftk_plugins.objectives.denoising.gaps import placed, poisson_lengths, span_lengths
from ftk_plugins.objectives.denoising.options import DenoisingOptions

T5, BART = toy_tokenizer("seq2seq_lm"), toy_tokenizer("masked_lm")
TEXTS = ["The sea is wide. It is deep!", "Salt.", "The river runs down to the sea, and on. Who knows?", "R"]
CTX = toy_context(torch.nn.Linear(1, 1), None)


def make(**options: Any) -> Denoising:
    return Denoising(DenoisingOptions(**options))


def drawn(part: Denoising, text: str, tokenizer: Any, seed: int = 0) -> tuple[list[str], list[str]]:
    """The tokens that the encoder reads and those that the decoder writes."""
    item = part.vary(part.encode({"text": text}, tokenizer), tokenizer, np.random.default_rng(seed))
    return tuple(tokenizer.convert_ids_to_tokens(item[name]) for name in ("input_ids", "labels"))  # type: ignore[return-value]


def bart() -> Any:
    torch.manual_seed(0)
    return BartForConditionalGeneration(
        BartConfig(
            vocab_size=262, d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4,
            decoder_attention_heads=4, encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=100,
            pad_token_id=0, bos_token_id=260, eos_token_id=1, decoder_start_token_id=1, forced_eos_token_id=1,
        )
    ).eval()  # fmt: skip


def test_spans_hide_what_the_paper_hides() -> None:
    for seed in range(50):
        lengths = span_lengths(512, 0.15, 3.0, 99, np.random.default_rng(seed))
        assert (lengths.sum(), len(lengths)) == (77, 26), "round(512 · 0.15) tokens in round(77 / 3) gaps"
        assert lengths.min() >= 1
    assert len(span_lengths(512, 0.15, 3.0, 9, np.random.default_rng(0))) == 9, "no more gaps than sentinels"
    assert len(span_lengths(512, 0.5, 8.0, 99, np.random.default_rng(0))) == 32
    assert span_lengths(1, 0.15, 3.0, 99, np.random.default_rng(0)).tolist() == [1]


def test_every_division_into_gaps_and_every_place_is_as_probable() -> None:
    rng = np.random.default_rng(0)
    ways = Counter(tuple(span_lengths(10, 0.5, 1.7, 99, rng)) for _ in range(6000))
    assert len(ways) == 6, "5 tokens in 3 gaps: 4 over 2 cuts"
    assert max(ways.values()) / min(ways.values()) < 1.2
    places = Counter(tuple(placed(np.array([2, 1]), 6, rng)) for _ in range(6000))
    assert set(places) == {(a, b) for a in range(6) for b in range(6) if a + 2 < b and b + 1 <= 6}
    assert max(places.values()) / min(places.values()) < 1.2


def test_infilling_gaps_are_poisson_and_hide_what_they_should() -> None:
    rng = np.random.default_rng(0)
    drawn = [poisson_lengths(1000, 0.3, 3.0, rng) for _ in range(60)]
    assert all(lengths.sum() == 300 for lengths in drawn)
    lengths = np.concatenate([each[:-1] for each in drawn])  # the last is cut to what is left
    for value in range(7):
        expected = np.exp(-3) * 3**value / np.prod(np.arange(1, value + 1))
        assert (lengths == value).mean() == pytest.approx(expected, abs=0.02), value
    for length in range(1, 12):
        small = poisson_lengths(length, 0.5, 1.0, rng)
        assert small.sum() == max(1, round(length * 0.5))
        assert len(small) <= min(small.sum(), length - small.sum() + 1)
        starts = placed(small, length, rng)
        assert (starts[1:] > (starts + small)[:-1]).all()
        assert starts[0] >= 0
        assert starts[-1] + small[-1] <= length


@pytest.mark.parametrize("text", TEXTS)
def test_the_sentinels_put_a_text_together_again(text: str) -> None:
    for seed in range(20):
        read, written = drawn(make(density=0.4), text, T5, seed)
        assert read[-1] == written[-1] == "<|end|>"
        gaps: dict[str, list[str]] = {}
        for token in written[:-1]:
            if token.startswith("<extra_id_"):
                last = gaps.setdefault(token, [])
            else:
                last.append(token)
        assert list(gaps) == [f"<extra_id_{number}>" for number in range(len(gaps))]
        assert gaps.popitem()[1] == [], "the last sentinel has nothing behind it"
        assert all(gaps.values())
        assert [token for token in read if token.startswith("<extra")] == list(gaps)
        whole = [token for each in read[:-1] for token in gaps.get(each, [each])]
        assert T5.convert_tokens_to_string(whole) == text


@pytest.mark.parametrize("text", TEXTS)
def test_infilling_reads_a_text_with_masks_and_writes_all_of_it(text: str) -> None:
    for seed in range(20):
        read, written = drawn(make(scheme="infilling"), text, BART, seed)
        assert written == ["<|start|>", *BART.tokenize(text), "<|end|>"]
        assert (read[0], read[-1]) == ("<|start|>", "<|end|>")
        assert len(read) <= len(written)
        pieces = " ".join(read[1:-1]).split("<|mask|>")
        assert len(pieces) > 1
        at, spelled = 0, " ".join(written)
        for piece in pieces:
            at = spelled.index(piece.strip(), at) + len(piece.strip())


def test_sentences_are_shuffled_and_none_is_lost() -> None:
    part = make(scheme="infilling", permute_sentences=True, density=0.01)
    text = "abc. de! fgh? ij"
    orders = set()
    for seed in range(60):
        read, written = drawn(part, text, BART, seed)
        assert BART.convert_tokens_to_string(written[1:-1]) == text
        told = BART.convert_tokens_to_string(read[1:-1])
        places = [told.find(end) for end in ("c.", "e!", "h?", "j")]
        orders.add(tuple(np.argsort(places)))
    assert len(orders) > 12, "of 24 orders"
    plain, _ = drawn(make(scheme="infilling", density=0.01), text, BART)
    assert len(plain) == len(written)


@pytest.mark.parametrize(("scheme", "tokenizer"), [("spans", T5), ("infilling", BART)])
def test_the_loss_is_that_of_the_model_itself(scheme: str, tokenizer: Any) -> None:
    part, model = make(scheme=scheme), bart() if scheme == "infilling" else toy_model(head="seq2seq_lm")
    items = list(toy_examples([{"text": text} for text in TEXTS], part, tokenizer).items)
    batch = part.collate(items)
    loss = part.loss(model, batch, CTX)
    expected = 0.0
    for item in items:
        ids, labels = (torch.from_numpy(item[name])[None].long() for name in ("input_ids", "labels"))
        logits = model(input_ids=ids, labels=labels).logits  # which shifts the labels by itself
        expected += cross_entropy(logits[0], labels[0], reduction="sum")
    torch.testing.assert_close(loss.total, expected, rtol=1e-4, atol=1e-4)
    assert loss.count == batch.count == sum(len(item["labels"]) for item in items)
    assert batch.tokens == batch.count + sum(len(item["input_ids"]) for item in items)
    told = Perplexity(PerplexityOptions()).measure(
        model, toy_task([{"text": text} for text in TEXTS], part, processor=tokenizer), CTX
    )
    assert np.log(told[0].value) == pytest.approx(loss.total.item() / loss.count, rel=1e-4)


def test_windows_have_room_for_what_is_added() -> None:
    for options, tokenizer in (({"density": 0.9, "mean_span": 1}, T5), ({"scheme": "infilling", "mean_span": 1}, BART)):
        part = make(max_length=16, **options)
        items = toy_examples([{"text": "abcdefghijklmnopqrstuvwxyz" * 3}, {"text": "z"}], part, tokenizer).items
        assert lengths_of(items).tolist() == [16] * 6 + [4]
        assert all(max(map(len, item.values())) <= 16 for item in items)
        (cut,) = toy_examples(
            [{"text": "x" * 99}], make(max_length=16, long_rows="truncate", **options), tokenizer
        ).items
        assert len(cut["input_ids"]) <= 16


@pytest.mark.parametrize(
    ("options", "tokenizer", "text", "words"),
    [
        ({}, BART, "a", "0 sentinels spelled `<extra_id_{}>`"),
        ({"sentinel": "<extra_id_1{}>"}, T5, "a", ""),
        ({"scheme": "infilling"}, T5, "a", "no mask token"),
        ({}, T5, "a<extra_id_3>b", "holds a sentinel"),
        ({"scheme": "infilling"}, BART, "a<|mask|>b", "holds the mask token"),
    ],
)
def test_what_cannot_be_damaged_is_refused(options: dict[str, Any], tokenizer: Any, text: str, words: str) -> None:
    if not words:
        read, _ = drawn(make(**options), "some text", tokenizer)
        assert "<extra_id_10>" in read, "sentinels by another spelling"
        return
    with pytest.raises(UserError, match=words):
        make(**options).encode({"text": text}, tokenizer)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sentinel": "<x>"}, "must hold"),
        ({"scheme": "infilling", "sentinel": "<x{}>"}, 'is of `scheme = "spans"`'),
        ({"permute_sentences": True}, 'is of `scheme = "infilling"`'),
    ],
)
def test_options_that_could_not_act_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        make(**options)


def test_a_decoder_of_which_nobody_says_how_it_starts_is_refused() -> None:
    model = toy_model(head="seq2seq_lm")
    model.config.decoder_start_token_id = model.generation_config.decoder_start_token_id = None
    part = make()
    with pytest.raises(UserError, match="with which token its decoder starts"):
        part.loss(model, part.collate(list(toy_examples([{"text": "abc"}], part, T5).items)), CTX)
