"""The objective `contrastive`: its losses against formulas in float64 on what Transformers gives of each text."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor, nn

from ftk import UserError
from ftk.testing import toy_context
from ftk_plugins.objectives.contrastive.contrastive import Contrastive
from ftk_plugins.objectives.contrastive.options import ContrastiveOptions
from tests.plugins.objectives.classes import tokenizer
from tests.plugins.objectives.retrieval import ROWS, batch_of, bert, llama, objective


def embedding(model: nn.Module, text: str, pooling: str = "mean", normalise: bool = True) -> Tensor:
    """The embedding of a text alone, ``(dim,) float64``."""
    with torch.no_grad():
        states = model(input_ids=torch.tensor([tokenizer()(text)["input_ids"]])).last_hidden_state[0].double()
    found = {"mean": states.mean(0), "cls": states[0], "last": states[-1]}[pooling]
    return found / found.square().sum().sqrt() if normalise else found


def loss_of(made: Contrastive, model: nn.Module, rows: list[dict[str, Any]] = ROWS) -> float:
    with torch.no_grad():
        return float(made.loss(model, batch_of(made, rows), toy_context(model, made)).total)


def from_formula(anchor: Tensor, right: Tensor, wrong: list[Tensor], temperature: float) -> float:
    """``−log softmax`` at the right one."""
    scores = [math.exp(float(anchor @ other) / temperature) for other in (right, *wrong)]
    return -math.log(scores[0] / sum(scores))


@pytest.mark.parametrize("make", [bert, llama])
@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@pytest.mark.parametrize("normalise", [True, False])
def test_pairs_find_each_other_among_all(make: Any, pooling: str, normalise: bool) -> None:
    model, temperature = make(), 0.2 if normalise else 5.0
    made = objective(pooling=pooling, normalise=normalise, temperature=temperature)
    anchors, positives = (
        [embedding(model, row[side], pooling, normalise) for row in ROWS] for side in ("anchor", "positive")
    )
    expected = sum(
        from_formula(anchor, positives[at], positives[:at] + positives[at + 1 :], temperature)
        for at, anchor in enumerate(anchors)
    )
    assert loss_of(made, model) == pytest.approx(expected, rel=1e-4)
    found = made.predict(model, batch_of(made), toy_context(model, made))
    torch.testing.assert_close(found.values.double(), torch.stack(anchors), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.references.double(), torch.stack(positives), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("negatives", [1, 3])
@pytest.mark.parametrize("symmetric", [False, True])
def test_the_hard_negatives_of_all_rows_are_among_what_an_anchor_is_compared_with(
    negatives: int, symmetric: bool
) -> None:
    model = bert()
    made = objective(kind="triplets", negatives=negatives, temperature=0.3, symmetric=symmetric)
    anchors, positives = ([embedding(model, row[side]) for row in ROWS] for side in ("anchor", "positive"))
    hard = [embedding(model, text) for row in ROWS for text in row["negative"][:negatives]]
    expected = 0.0
    for at, (anchor, positive) in enumerate(zip(anchors, positives, strict=True)):
        there = from_formula(anchor, positive, positives[:at] + positives[at + 1 :] + hard, 0.3)
        back = from_formula(positive, anchor, anchors[:at] + anchors[at + 1 :], 0.3)
        expected += (there + back) / 2 if symmetric else there
    assert loss_of(made, model) == pytest.approx(expected, rel=1e-4)


def test_a_negative_may_be_one_text() -> None:
    rows = [{**row, "negative": row["negative"][0]} for row in ROWS]
    made = objective(kind="triplets")
    assert loss_of(made, bert(), rows) == loss_of(made, bert())


def test_the_mean_loss_is_that_of_sentence_transformers() -> None:
    """``MultipleNegativesRankingLoss``: the cross entropy of ``scale`` · cosine similarities, scale 20, of pairs."""
    model = bert()
    anchors, positives = (torch.stack([embedding(model, row[side]) for row in ROWS]) for side in ("anchor", "positive"))
    scores = F.cosine_similarity(anchors[:, None], positives[None], dim=-1) * 20.0
    theirs = F.cross_entropy(scores, torch.arange(len(ROWS)))
    assert loss_of(objective(), model) / len(ROWS) == pytest.approx(float(theirs), rel=1e-4)


@pytest.mark.parametrize("symmetric", [False, True])
def test_what_is_right_for_a_row_is_no_negative_of_it(symmetric: bool) -> None:
    """An equal positive, and the positive of an equal anchor."""
    model, made = bert(), objective(symmetric=symmetric, temperature=0.2)
    rows = [*ROWS[:3], {"anchor": "lion", "positive": "it purrs"}, {"anchor": "oak", "positive": "wood"}]
    anchors, positives = ([embedding(model, row[side]) for row in rows] for side in ("anchor", "positive"))
    alike = {(0, 3), (3, 0), (2, 4), (4, 2)}
    expected = 0.0
    for at in range(len(rows)):
        wrong = [other for other in range(len(rows)) if other != at and (at, other) not in alike]
        there = from_formula(anchors[at], positives[at], [positives[other] for other in wrong], 0.2)
        back = from_formula(positives[at], anchors[at], [anchors[other] for other in wrong], 0.2)
        expected += (there + back) / 2 if symmetric else there
    assert loss_of(made, model, rows) == pytest.approx(expected, rel=1e-4)


def test_dropout_gives_two_views_of_one_text() -> None:
    made, model = objective(kind="dropout"), bert(hidden_dropout_prob=0.2).train()
    torch.manual_seed(3)
    seen = made.embed(model, batch_of(made), toy_context(model, made))["embeddings"].detach().double()
    torch.manual_seed(3)
    found = float(made.loss(model, batch_of(made), toy_context(model, made)).total.detach())
    assert not torch.equal(seen[:, 0], seen[:, 1])
    expected = sum(
        from_formula(row[0], row[1], [seen[other, 1] for other in range(len(ROWS)) if other != at], 0.05)
        for at, row in enumerate(seen)
    )
    assert found == pytest.approx(expected, rel=1e-4)


def test_views_of_a_model_that_drops_nothing_out_are_refused() -> None:
    made, model = objective(kind="dropout"), bert().train()
    with pytest.raises(UserError, match="drops nothing out"):
        made.loss(model, batch_of(made), toy_context(model, made))
    made.loss(model.eval(), batch_of(made), toy_context(model, made))  # where nothing is trained there is one view


def test_a_long_text_is_cut() -> None:
    made = objective(max_length=6)
    ends = made.encode(ROWS[1], tokenizer())["ends"].tolist()
    assert ends == [6, 6 + len(tokenizer()("barks")["input_ids"])]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"anchor": "a"}, "no text in column `positive`"),
        ({"positive": "a", "anchor": " "}, "text in column `anchor` is empty"),
        ({"anchor": 1}, "no text in column `positive`"),
    ],
)
def test_a_row_without_a_text_names_the_column(row: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        objective().encode(row, tokenizer())


def test_a_row_without_negatives_names_the_column() -> None:
    with pytest.raises(UserError, match="no text in column `negative`"):
        objective(kind="triplets").encode({**ROWS[0], "negative": []}, tokenizer())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"negative": "wrong"}, "`negative` has nothing to act on"),
        ({"negatives": 3}, "`negatives` has nothing to act on"),
        ({"kind": "dropout", "symmetric": True}, "`symmetric` has nothing to act on"),
        ({"positive": "anchor"}, "one column"),
    ],
)
def test_options_that_do_not_act_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        ContrastiveOptions(**options)
