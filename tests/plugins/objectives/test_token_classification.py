"""The objective `token_classification`: tags at sub-words by brute force, its losses by hand, what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from datasets import ClassLabel, Dataset, Features, List, Value
from sklearn.utils.class_weight import compute_class_weight
from torch import nn

from ftk import UserError
from ftk.parts import predictions
from ftk.testing import toy_context, toy_task
from ftk_plugins.evaluators.accuracy.accuracy import Accuracy
from ftk_plugins.evaluators.accuracy.options import AccuracyOptions
from ftk_plugins.objectives.token_classification.options import TokenClassificationOptions
from ftk_plugins.objectives.token_classification.token_classification import TokenClassification
from tests.plugins.mitigations.brute_force import assert_told_apart
from tests.plugins.objectives.tagging import NAMES, ROWS, batch_of, bert, loss_of, objective, tokenizer

KINDS = ("bytes", "bpe", "wordpiece", "sentencepiece")


def by_characters(row: dict[str, Any], kind: str, separator: str = " ") -> tuple[list[int], list[str | None]]:
    """The tokens of the whole text, and the tag of the word that each begins in: found by counting characters."""
    text = separator.join(row["tokens"])
    owner: list[int | None] = []
    for number, word in enumerate(row["tokens"]):
        owner += [None] * (len(separator) if number else 0) + [number] * len(word)
    made = tokenizer(kind)
    encoded = made(text, return_offsets_mapping=True, return_special_tokens_mask=True)
    tags: list[str | None] = []
    spaces = [token == "▁" for token in made.convert_ids_to_tokens(encoded["input_ids"])]
    for (start, stop), special, space in zip(
        encoded["offset_mapping"], encoded["special_tokens_mask"], spaces, strict=True
    ):
        owners = [] if special or space else [each for each in owner[start:stop] if each is not None]
        tags.append(f"{owners[0]} {row['tags'][owners[0]]}" if owners else None)
    return encoded["input_ids"], tags


def alone(model: nn.Module, row: dict[str, Any]) -> torch.Tensor:
    """The logits at each word's first byte as Transformers gives them to anybody who asks with the plain text."""
    ids, tags = by_characters(row, "bytes")
    first = [tags.index(tag) for tag in dict.fromkeys(tags) if tag is not None]
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=torch.tensor([ids])).logits[0, first]
    return logits


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("label_all", [False, True])
@pytest.mark.parametrize("row", range(len(ROWS)))
def test_tags_stand_where_their_words_do(kind: str, label_all: bool, row: int) -> None:
    ids, tags = by_characters(ROWS[row], kind)
    found = objective(label_all=label_all).encode(ROWS[row], tokenizer(kind))
    assert found["input_ids"].tolist() == ids
    first = [tag is not None and tag not in tags[:place] for place, tag in enumerate(tags)]
    expected = [
        NAMES.index(tag.split()[1]) if tag is not None and (label_all or begins) else -100
        for tag, begins in zip(tags, first, strict=True)
    ]
    assert found["labels"].tolist() == expected
    if label_all:
        assert found["first"].tolist() == [int(begins) for begins in first]


@pytest.mark.parametrize("separator", ["", " ", "  "])
def test_words_are_read_with_what_stands_between_them(separator: str) -> None:
    row = {"tokens": ["北京", "在", "中国"], "tags": ["LOC", "O", "LOC"]}
    made = objective(separator=separator)
    ids, _ = by_characters(row, "bytes", separator)
    found = made.encode(row, tokenizer())
    assert found["input_ids"].tolist() == ids
    assert list(made.texts(row)) == [separator.join(row["tokens"])]
    assert np.count_nonzero(found["labels"] != -100) == 3


def test_the_model_answers_as_to_the_plain_text_once_for_each_word() -> None:
    model, expected = bert(), []
    for row in ROWS:
        expected.append(alone(model, row))
    for label_all in (False, True):
        made = objective(label_all=label_all)
        found = predictions(toy_task(ROWS, made, processor=tokenizer()), model, toy_context(model, made))
        torch.testing.assert_close(found.values, torch.cat(expected))
        assert found.references.tolist() == [NAMES.index(tag) for row in ROWS for tag in row["tags"]]
        assert found.rows is not None
        assert found.rows.tolist() == [number for number, row in enumerate(ROWS) for _ in row["tags"]]
        assert found.labels == NAMES


def test_accuracy_is_of_words() -> None:
    made, model = objective(), bert()
    (metric,) = Accuracy(AccuracyOptions()).measure(
        model, toy_task(ROWS, made, processor=tokenizer()), toy_context(model, made)
    )
    guessed = torch.cat([alone(model, row) for row in ROWS]).argmax(-1).tolist()
    right = [NAMES.index(tag) for row in ROWS for tag in row["tags"]]
    hits = sum(one == other for one, other in zip(guessed, right, strict=True))
    assert 0 < hits < len(right)
    assert metric.value == pytest.approx(hits / len(right))


@pytest.mark.parametrize("weights", [None, {"PER": 3.0, "O": 0.5, "LOC": 1.0}], ids=["plain", "weighed"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_a_sum_of_cross_entropies(weights: dict[str, float] | None, smoothing: float) -> None:
    made, model = objective(class_weights=weights), bert().train()
    found = loss_of(made, model, label_smoothing=smoothing)
    factors = [1.0 if weights is None else weights[name] for name in NAMES]
    expected = 0.0
    for row in ROWS:
        for logits, tag in zip(alone(model, row).double(), row["tags"], strict=True):
            nats, right = -logits.log_softmax(-1), NAMES.index(tag)
            spread = sum(factor * float(each) for factor, each in zip(factors, nats, strict=True)) / 3
            expected += (1 - smoothing) * factors[right] * float(nats[right]) + smoothing * spread
    assert found.total.item() == pytest.approx(expected, rel=1e-5)
    assert found.count == sum(len(row["tags"]) for row in ROWS)
    plain, same = (loss_of(made, model.eval(), label_smoothing=share).total for share in (0.0, 0.3))
    assert torch.equal(plain, same)


@pytest.mark.parametrize("label_all", [False, True])
def test_the_mean_loss_is_what_transformers_computes(label_all: bool) -> None:
    made, model = objective(label_all=label_all), bert()
    batch = batch_of(made)
    theirs = model(**{name: batch.inputs[name] for name in ("input_ids", "attention_mask", "labels")}).loss
    found = loss_of(made, model)
    assert found.total.item() / found.count == pytest.approx(float(theirs), rel=1e-5)
    assert found.count == (sum(len("".join(row["tokens"]).encode()) for row in ROWS) if label_all else 13)


def test_drawn_tags_are_as_frequent_as_the_model_says() -> None:
    made, model = objective(), bert()
    batch = batch_of(made, ROWS[:1] * 2000)
    drawn = made.draw_targets(model, batch, torch.Generator().manual_seed(0)).inputs["labels"]
    assert torch.equal(drawn == -100, batch.inputs["labels"] == -100)
    shares = F.one_hot(drawn[drawn != -100].view(2000, -1), 3).double().mean(0)
    torch.testing.assert_close(shares, alone(model, ROWS[0]).softmax(-1).double(), atol=0.04, rtol=0)


def test_the_fisher_of_each_row_is_told_apart() -> None:
    made = objective(class_weights={"PER": 2.0})
    model = bert()
    task = toy_task(ROWS, made, processor=tokenizer())
    assert_told_apart(model, task, lambda row: loss_of(made, model, [row]).total)


def test_long_rows_lose_their_last_words_and_the_tokenizer_is_left_as_it_was() -> None:
    made, processor = objective(max_length=11), tokenizer()
    before = processor.backend_tokenizer.to_str()
    found = made.encode(ROWS[0], processor)
    assert found["input_ids"].tolist() == [*processor("Anna is i")["input_ids"][:10], processor.eos_token_id]
    assert np.count_nonzero(found["labels"] != -100) == 3
    assert processor.backend_tokenizer.to_str() == before


def test_tags_and_their_weights_are_as_the_rows_tell() -> None:
    tags = [tag for row in ROWS for tag in row["tags"]]
    made = objective(class_weights="balanced")
    assert made.head.labels == NAMES
    assert made.head.kind == "token_classification"
    theirs = compute_class_weight("balanced", classes=np.array(NAMES), y=tags)
    assert list(made.options.class_weights.values()) == pytest.approx(theirs.tolist())  # type: ignore[union-attr]
    declared = Features({"tokens": List(Value("string")), "tags": List(ClassLabel(names=["O", "B-X", "I-X"]))})
    rows = Dataset.from_dict({"tokens": [["a", "b"]], "tags": [[1, 0]]}, declared)
    values = TokenClassification(TokenClassificationOptions()).completed(rows)
    assert values["labels"] == ("O", "B-X", "I-X")
    named = TokenClassification(TokenClassificationOptions(labels=["O", "B-X"]))
    assert named.completed(rows) == {}
    assert named.encode(rows[0], tokenizer())["labels"].tolist() == [-100, 1, -100, 0, -100]


@pytest.mark.parametrize(
    ("row", "reason", "mend"),
    [
        ({"tags": ["O"]}, "nothing in column `tokens`; the row has `tags`", "the objective's `tokens`"),
        ({"tokens": ["a"]}, "nothing in column `tags`", "the objective's `tags`"),
        ({"tokens": "a b", "tags": ["O", "O"]}, "holds no list of words, but 'a b'", "write a list"),
        ({"tokens": ["a"], "tags": "O"}, "holds no list of tags, but 'O'", "write a list"),
        ({"tokens": [], "tags": []}, "column `tokens` holds no word", "remove the row"),
        ({"tokens": ["a", " "], "tags": ["O", "O"]}, "word 2 in column `tokens` is empty", "remove it and its tag"),
        ({"tokens": ["a", "b"], "tags": ["O"]}, "`tokens` holds 2 words, column `tags` 1 tags", "each word one tag"),
        ({"tokens": ["a"], "tags": ["LOK"]}, "the label `LOK` is none of .*: LOC, O, PER", "did you mean `LOC`"),
    ],
)
def test_a_row_that_cannot_be_learned_says_why(row: dict[str, Any], reason: str, mend: str) -> None:
    with pytest.raises(UserError, match=reason) as caught:
        objective().encode(row, tokenizer())
    assert mend in str(caught.value.hint)


def test_words_of_which_nothing_is_left_are_no_targets() -> None:
    made, processor = objective(), tokenizer("wordpiece")
    found = made.encode({"tokens": ["Oslo", "\u200b", "is"], "tags": ["LOC", "O", "PER"]}, processor)
    assert found["labels"].tolist() == [-100, 0, 2, -100]
    with pytest.raises(UserError, match="leaves nothing of the row's words"):
        made.encode({"tokens": ["\u200b"], "tags": ["O"]}, processor)


def test_a_slow_tokenizer_is_refused() -> None:
    class Slow:
        is_fast = False

    with pytest.raises(UserError, match="slow one, written in Python"):
        objective().encode(ROWS[0], Slow())


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"labels": ["a", "b", "a"]}, "names one label twice"),
        ({"labels": ["a"]}, "nothing to tell apart"),
        ({"labels": ["a", "b"], "class_weights": {"c": 1.0}}, "names c, not among"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        TokenClassificationOptions(**options)


def test_rows_that_do_not_tell_are_refused() -> None:
    with pytest.raises(UserError, match="there is no column `pos`; there are tokens, tags") as caught:
        objective(tags="pos")
    assert "the objective's `tags`" in str(caught.value.hint)
    with pytest.raises(UserError, match="holds the label `O` alone"):
        objective(ROWS[3:])
    with pytest.raises(UserError, match="names ORG; the labels are LOC, O, PER"):
        objective(class_weights={"ORG": 2.0})
