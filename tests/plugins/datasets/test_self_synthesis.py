"""Rows that the starting model writes: likelihoods against plain transformers, the filter, what it depends on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

import ftk
from ftk.parts import Loaded, StartingModel
from ftk.testing.toys import toy_model, toy_tokenizer
from ftk_plugins.datasets.self_synthesis.forms import FORMS
from ftk_plugins.datasets.self_synthesis.options import SelfSynthesisOptions
from ftk_plugins.datasets.self_synthesis.sampling import Writer
from ftk_plugins.datasets.self_synthesis.self_synthesis import SelfSynthesis

CHAT = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def talker(ends: float = 0.0, seed: int = 0) -> Any:
    """A toy model that writes plain letters, and ends a text about as often as ``ends`` says."""
    model = toy_model(seed=seed, tie_word_embeddings=False)
    wanted = torch.full((260,), -40.0)
    letters = toy_tokenizer()("abcdefghij")["input_ids"]
    wanted[letters] = torch.linspace(1, 0, len(letters))
    wanted[1] = np.log(ends) + 2 if ends else -40.0
    forward = model.lm_head.forward
    model.lm_head.forward = lambda states: forward(states) + wanted
    return model


def source(model: Any = None, tokenizer: Any = None, **options: Any) -> SelfSynthesis:
    found = SelfSynthesis(SelfSynthesisOptions(**{"max_new_tokens": 8, "rows": 12, **options}))
    loaded = Loaded(model or talker(0.1), tokenizer or toy_tokenizer())
    found.see_model(StartingModel(lambda: "it", lambda head: loaded, lambda *told: None))
    return found


def rows(model: Any = None, tokenizer: Any = None, **options: Any) -> Dataset:
    return source(model, tokenizer, **options).rows("train")


def perplexity(model: Any, read: list[int], written: list[int]) -> float:
    """Of some tokens after others, with plain transformers."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([read + written])).logits[0].double()
    likely = logits.log_softmax(-1)[torch.arange(len(read) - 1, len(read) + len(written) - 1), torch.tensor(written)]
    return float(likely.mean().neg().exp())


def test_perplexities_are_those_of_the_model_itself_whatever_was_drawn_how() -> None:
    model, tokenizer = talker(0.25), toy_tokenizer()
    found, cut = rows(model, temperature=0.6, top_p=0.8, top_k=7, prompts=["ab", "klm"], batch_size=5), set()
    for row in found:
        start = "klm" if row["text"].startswith("k") else "ab"
        written = tokenizer(row["text"][len(start) :])["input_ids"]
        cut.add(len(written) == 8)
        written += [1] if len(written) < 8 else []
        assert row["perplexity"] == pytest.approx(perplexity(model, tokenizer(start)["input_ids"], written), rel=1e-4)
    assert cut == {True, False}


def test_without_prompts_it_begins_as_a_document_does() -> None:
    model = talker(0.1)
    for row in rows(model):
        written = toy_tokenizer()(row["text"])["input_ids"]
        written += [1] if len(written) < 8 else []
        assert row["perplexity"] == pytest.approx(perplexity(model, [1], written), rel=1e-4)


def test_the_filter_cuts_the_edges_and_tells_so() -> None:
    whole = source(rows=40, drop_lowest=0, drop_highest=0, batch_size=16)
    every = whole.rows("train").to_list()
    cut = source(rows=40, drop_lowest=0.25, drop_highest=0.125, batch_size=16)
    kept = cut.rows("train").to_list()
    drawn = 40 / (1 - 0.25 - 0.125)
    assert len(every) == len(kept) == 40
    dropped = {effect.reason.split(" a perplexity ")[-1].split()[0]: effect.rows for effect in cut.effects()}
    assert dropped["below"] >= drawn // 4
    assert dropped["above"] >= drawn // 8
    low, high = min(row["perplexity"] for row in kept), max(row["perplexity"] for row in kept)
    of_both = [row for row in every if row in kept]
    assert of_both
    assert all(low <= row["perplexity"] <= high for row in of_both)
    out = [row["perplexity"] for row in every if row not in kept]
    assert any(value < low for value in out)
    assert any(value > high for value in out)


def test_quantiles_against_numpy() -> None:
    synthesis = source(rows=60, drop_lowest=0.2, drop_highest=0.3)
    perplexities = np.random.default_rng(0).permutation(100).astype(float)
    forms = [
        FORMS["text"](Writer(Loaded(talker(), toy_tokenizer()), synthesis.options, lambda: None), synthesis.options)
    ]
    drawn = forms[0](range(1)) * 100
    kept = synthesis._between(drawn, perplexities)
    low, high = np.quantile(perplexities, [0.2, 0.7])
    assert kept == [row for row in range(100) if low <= perplexities[row] <= high][:60]


def test_equal_rows_come_once_and_few_different_ones_do_not_keep_it_for_ever(
    caplog: pytest.LogCaptureFixture,
) -> None:
    synthesis = source(talker(), max_new_tokens=1, rows=30, top_p=1.0, batch_size=16)
    found = synthesis.rows("train")
    assert len(set(found["text"])) == len(found) <= 10
    (alike,) = [effect for effect in synthesis.effects() if effect.reason == "like another"]
    assert alike.rows > 30
    assert alike.examples
    assert f"self_synthesis: {len(found)} rows of 30: of what was written, {alike.rows} like another" in caplog.text
    caplog.clear()
    rows(rows=2)
    assert not caplog.text


def test_the_same_options_give_the_same_rows_and_every_option_of_the_draw_others() -> None:
    before = torch.get_rng_state()
    base = rows(talker(0.1)).to_list()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(5)
    assert rows(talker(0.1)).to_list() == base
    changes: tuple[dict[str, Any], ...] = (
        {"seed": 1}, {"temperature": 0.5}, {"top_p": 0.5}, {"top_k": 3}, {"max_new_tokens": 5}, {"prompts": ["b"]},
        {"batch_size": 5}, {"rows": 5}, {"drop_lowest": 0.4}, {"drop_highest": 0.4},
    )  # fmt: skip
    for change in changes:
        assert rows(talker(0.1), **change).to_list() != base, change


@pytest.mark.parametrize(("options", "most"), [({"top_k": 2}, 2), ({"top_p": 0.01}, 1), ({"temperature": 0.001}, 1)])
def test_few_tokens_to_choose_from_are_the_likeliest(options: dict[str, Any], most: int) -> None:
    model = talker()
    for row in rows(model, rows=3, drop_lowest=0, drop_highest=0, prompts=["a", "b", "c"], **options):
        ids = torch.tensor([toy_tokenizer()(row["text"])["input_ids"]])
        with torch.no_grad():
            ranks = model(input_ids=ids).logits[0, :-1].argsort(descending=True)
        for place, token in enumerate(ids[0, 1:].tolist()):
            assert token in ranks[place, :most].tolist()


def test_a_chat_s_question_stands_where_the_user_speaks() -> None:
    model, tokenizer = talker(0.6), toy_tokenizer()
    tokenizer.chat_template = CHAT
    synthesis = source(model, tokenizer, form="chat", rows=6, max_new_tokens=6)
    found = synthesis.rows("train")
    assert set(found.column_names) == {"instruction", "output", "perplexity"}
    for row in found:
        asked, said = (tokenizer(row[name])["input_ids"] + [1] for name in ("instruction", "output"))
        opening = tokenizer("<user>")["input_ids"]
        answering = tokenizer(f"<user>{row['instruction']}<|end|><assistant>")["input_ids"]
        nats = len(asked) * np.log(perplexity(model, opening, asked))
        nats += len(said) * np.log(perplexity(model, answering, said))
        assert row["perplexity"] == pytest.approx(np.exp(nats / (len(asked) + len(said))), rel=1e-4)
    reasons = {effect.reason for effect in synthesis.effects()}
    assert "with an answer cut off after 6 tokens" in reasons


def test_a_recipe_s_own_questions_are_answered() -> None:
    tokenizer = toy_tokenizer()
    tokenizer.chat_template = CHAT
    found = rows(talker(0.6), tokenizer, form="chat", rows=6, prompts=["Who?", "Why?"])
    assert set(found["instruction"]) == {"Who?", "Why?"}


@pytest.mark.parametrize(
    ("change", "model", "match"),
    [
        ({"form": "chat"}, None, "no chat template"),
        ({"max_new_tokens": 300}, None, "do not fit the model's context of 256 tokens"),
        ({"max_new_tokens": 1}, talker(1e9), "nothing that the starting model wrote is of use: .* empty"),
        ({}, torch.nn.Linear(2, 2), "a Linear, writes no text"),
    ],
)
def test_what_cannot_be_written_is_refused_in_words(change: dict[str, Any], model: Any, match: str) -> None:
    with pytest.raises(ftk.UserError, match=match):
        rows(model, **change)


def test_a_tokenizer_without_ends_needs_prompts() -> None:
    tokenizer = toy_tokenizer()
    tokenizer.eos_token = None
    model = talker()
    model.generation_config.eos_token_id = model.config.eos_token_id = None
    with pytest.raises(ftk.UserError, match="no token that begins or ends a text"):
        rows(model, tokenizer)
    assert len(rows(model, tokenizer, prompts=["a"], rows=2)) == 2


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"drop_lowest": 0.5, "drop_highest": 0.5}, "leave no row"), ({"prompts": [" "]}, "is empty"),
        ({"top_p": 0}, "greater than 0"), ({"temperature": 0}, "greater than 0"),
    ],
)  # fmt: skip
def test_options_that_say_nothing_are_refused(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        SelfSynthesisOptions(**options)
