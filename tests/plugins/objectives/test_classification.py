"""The objective `classification`: what a model reads and answers, its losses against Transformers' and torch's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ftk import UserError
from ftk.testing import toy_context, toy_task
from ftk_plugins.objectives.classification.options import ClassificationOptions
from tests.plugins.mitigations.brute_force import assert_told_apart
from tests.plugins.objectives.classes import (
    KINDS,
    ROWS,
    batch_of,
    bert,
    llama,
    loss_of,
    objective,
    outputs,
    tokenizer,
)


def alone(model: nn.Module, row: dict[str, Any], pair: str | None = None) -> torch.Tensor:
    """The logits of one row as Transformers gives them to anybody."""
    made = tokenizer()
    inputs = made(row["text"], None if pair is None else row[pair], return_tensors="pt")
    if not isinstance(model, type(bert())):
        inputs.pop("token_type_ids", None)
    with torch.no_grad():
        logits: torch.Tensor = model(**inputs).logits[0]
    return logits


@pytest.mark.parametrize("make", [bert, llama])
@pytest.mark.parametrize("pair", [None, "other"])
def test_a_model_answers_as_to_one_row_with_its_tokenizer(make: Any, pair: str | None) -> None:
    made, model = objective(pair=pair), make()
    found = made.predict(model, batch_of(made), toy_context(model, made))
    torch.testing.assert_close(found.values, torch.stack([alone(model, row, pair) for row in ROWS]))
    assert found.labels == ("bad", "even", "good")
    assert found.references.tolist() == [2, 0, 1, 2, 2]


def test_the_second_text_of_a_pair_is_told_apart() -> None:
    made = objective(pair="other")
    batch = batch_of(made, ROWS[:1])
    ids = tokenizer()("a good film")["input_ids"]
    assert batch.inputs["token_type_ids"][0].tolist() == [0] * len(ids) + [1] * len(tokenizer()("yes")["input_ids"])
    assert "token_type_ids" not in batch_of(objective()).inputs


@pytest.mark.parametrize("weights", [None, {"bad": 3.0, "even": 1.0, "good": 0.5}], ids=["plain", "weighed"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_one_label_is_a_sum_of_cross_entropies(weights: dict[str, float] | None, smoothing: float) -> None:
    made, model = objective(class_weights=weights), bert().train()
    found = loss_of(made, model, label_smoothing=smoothing)
    factors = [1.0] * 3 if weights is None else [weights[name] for name in ("bad", "even", "good")]
    expected = 0.0
    for row in ROWS:
        nats = -alone(model, row).double().log_softmax(-1)
        right = ["bad", "even", "good"].index(row["label"])
        spread = sum(factor * float(each) for factor, each in zip(factors, nats, strict=True)) / 3
        expected += (1 - smoothing) * factors[right] * float(nats[right]) + smoothing * spread
    assert found.total.item() == pytest.approx(expected, rel=1e-5)
    assert found.count == len(ROWS)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_several_labels_are_a_mean_of_binary_cross_entropies(smoothing: float) -> None:
    made, model = objective(kind="multiple", label="tags", class_weights={"long": 4.0}), bert().train()
    assert made.head.labels == ("film", "long", "short")
    found = loss_of(made, model, label_smoothing=smoothing)
    expected = 0.0
    for row in ROWS:
        for name, logit in zip(("film", "long", "short"), alone(model, row).double().tolist(), strict=True):
            target = (1 - smoothing) * (name in row["tags"]) + smoothing / 2
            yes, no = 1 / (1 + np.exp(-logit)), 1 / (1 + np.exp(logit))
            weight = 4.0 if name == "long" else 1.0
            expected -= (weight * target * np.log(yes) + (1 - target) * np.log(no)) / 3
    assert found.total.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("label", ["score", "two"])
def test_numbers_are_a_mean_square(label: str) -> None:
    made = objective(kind="regression", label=label)
    model = bert(outputs(made))
    errors = torch.stack([alone(model, row) - torch.tensor(row[label]) for row in ROWS])
    assert loss_of(made, model).total.item() == pytest.approx(float(errors.square().mean() * len(ROWS)), rel=1e-5)
    assert made.head.labels == (("score",) if label == "score" else ("two_0", "two_1"))
    found = made.predict(model, batch_of(made), toy_context(model, made))
    assert found.kind == "scalars"
    assert found.references.tolist() == [row["two"] if label == "two" else [row["score"]] for row in ROWS]


@pytest.mark.parametrize("kind", ["single", "multiple", "regression"])
def test_the_mean_loss_is_what_transformers_computes(kind: str) -> None:
    made = objective(**KINDS[kind])
    model = bert(outputs(made))
    problem = {"single": "single_label", "multiple": "multi_label"}.get(kind, "")
    model.config.problem_type = f"{problem}_classification" if problem else "regression"
    batch = batch_of(made)
    labels = batch.inputs["labels"]
    theirs = model(
        input_ids=batch.inputs["input_ids"], attention_mask=batch.inputs["attention_mask"],
        labels=labels[:, 0] if kind == "single" else labels.float(),
    ).loss  # fmt: skip
    assert loss_of(made, model).total.item() / len(ROWS) == pytest.approx(float(theirs), rel=1e-5)


def test_smoothing_is_for_training_alone() -> None:
    made, model = objective(), bert()
    assert float(loss_of(made, model, label_smoothing=0.3).total) == float(loss_of(made, model).total)


@pytest.mark.parametrize("kind", KINDS)
def test_the_fisher_of_each_row_is_told_apart(kind: str) -> None:
    made = objective(**KINDS[kind])
    model = bert(outputs(made))
    task = toy_task(ROWS, made, processor=tokenizer())
    assert_told_apart(model, task, lambda row: loss_of(made, model, [row]).total)


def test_drawn_labels_are_as_frequent_as_the_model_says() -> None:
    made, model = objective(), bert()
    batch = batch_of(made, ROWS[:1] * 4000)
    drawn = made.draw_targets(model, batch, torch.Generator().manual_seed(0)).inputs["labels"]
    shares = F.one_hot(drawn[:, 0], 3).double().mean(0)
    torch.testing.assert_close(shares, alone(model, ROWS[0]).softmax(-1).double(), atol=0.03, rtol=0)


def test_drawn_sets_of_labels_are_as_frequent_as_the_model_says() -> None:
    made, model = objective(**KINDS["multiple"]), bert()
    batch = batch_of(made, ROWS[:1] * 4000)
    drawn = made.draw_targets(model, batch, torch.Generator().manual_seed(0)).inputs["labels"]
    torch.testing.assert_close(drawn.double().mean(0), alone(model, ROWS[0]).sigmoid().double(), atol=0.03, rtol=0)


def test_the_loss_of_numbers_is_the_likelihood_that_they_are_drawn_from() -> None:
    made, model = objective(**KINDS["regression"]), bert(2)
    batch = batch_of(made, ROWS[:1] * 4000)
    drawn = made.draw_targets(model, batch, torch.Generator().manual_seed(0)).inputs["labels"]
    error = drawn - alone(model, ROWS[0])
    torch.testing.assert_close(error.mean(0), torch.zeros(2), atol=0.06, rtol=0)
    # exp(−Σ error² / 2) is the normal density of variance 1.
    torch.testing.assert_close(error.var(0), torch.ones(2), atol=0.08, rtol=0)


def test_long_texts_are_cut_at_their_ends_and_the_tokenizer_is_left_as_it_was() -> None:
    made, processor = objective(max_length=8), tokenizer()
    before = processor.backend_tokenizer.to_str()
    (features,) = made.encode_batch([ROWS[2]], processor)
    assert features["input_ids"].tolist() == [*processor("so so, ")["input_ids"][:7], 1]
    assert processor.backend_tokenizer.to_str() == before
    processor.model_max_length = 6
    assert len(made.encode(ROWS[2], processor)["input_ids"]) == 6


def test_a_pair_loses_of_its_longer_text() -> None:
    made = objective(pair="other", max_length=12)
    (features,) = made.encode_batch([{**ROWS[0], "other": "a text that is very long"}], tokenizer())
    assert len(features["input_ids"]) == 12
    kept = [int((features["token_type_ids"] == part).sum()) - 1 for part in (0, 1)]
    assert min(kept) >= 5


def test_labels_have_no_part_in_the_texts() -> None:
    made = objective(pair="other")
    assert list(made.texts(ROWS[0])) == ["a good film", "yes"]
    assert list(objective().texts(ROWS[0])) == ["a good film"]


@pytest.mark.parametrize(
    ("options", "row", "reason"),
    [
        ({}, {"label": "good"}, "no text in column `text`; the row has `label`"),
        ({"pair": "other"}, {"text": "a", "other": " ", "label": "good"}, "the text in column `other` is empty"),
        ({}, {"text": "a"}, "nothing in column `label`; the row has `text`"),
        ({}, {"text": "a", "label": "god"}, "the label `god` is none of .*: bad, even, good"),
        ({"kind": "multiple", "label": "tags"}, {"text": "a", "tags": "film"}, "holds no list of labels, but 'film'"),
        ({"kind": "multiple", "label": "tags"}, {"text": "a", "tags": ["x"]}, "the label `x` is none of"),
        ({"kind": "regression", "label": "score"}, {"text": "a", "score": "4"}, "holds no number, but '4'"),
        ({"kind": "regression", "label": "score"}, {"text": "a", "score": float("nan")}, "not finite"),
        ({"kind": "regression", "label": "two"}, {"text": "a", "two": [1.0]}, "1 numbers, where others hold 2"),
    ],
)
def test_a_row_that_cannot_be_learned_says_why(options: dict[str, Any], row: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        objective(**options).encode(row, tokenizer())


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"labels": ["a", "b", "a"]}, "names one label twice"),
        ({"labels": ["a"]}, "nothing to tell apart"),
        ({"kind": "regression", "class_weights": "balanced"}, "has none"),
        ({"labels": ["a", "b"], "class_weights": {"c": 1.0}}, "names c, not among"),
        ({"class_weights": {"c": 0.0}}, "greater than 0"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        ClassificationOptions(**options)


def test_what_it_provides_depends_on_what_is_learned() -> None:
    assert set(ClassificationOptions().withheld()) == {"scalar-predictions"}
    lacking = {"class-predictions", "label-smoothing", "target-logits", "target-listing"}
    assert set(ClassificationOptions(kind="regression").withheld()) == lacking


def test_a_model_with_other_outputs_is_refused() -> None:
    made = objective(**KINDS["regression"])
    with pytest.raises(UserError, match="the model has 3 outputs, a row 2"):
        loss_of(made, bert(3))
