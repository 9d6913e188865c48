"""The objective `image_text_contrastive`: its loss and gradients are those of Transformers' own CLIP."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from ftk import UserError
from ftk.parts.comparing import Comparison
from ftk.testing import toy_context
from ftk_plugins.objectives.contrastive.contrastive import Contrastive
from ftk_plugins.objectives.contrastive.options import ContrastiveOptions
from ftk_plugins.objectives.image_text_contrastive.image_text_contrastive import ImageTextContrastive
from ftk_plugins.objectives.image_text_contrastive.options import ImageTextContrastiveOptions
from tests.plugins.objectives.captions import ROWS, clip, processor
from tests.plugins.objectives.retrieval import bert

MADE = ImageTextContrastive(ImageTextContrastiveOptions())


def batch_of(rows: list[dict]) -> object:
    return MADE.collate(MADE.encode_batch(rows, processor()))


@pytest.mark.parametrize("size", [5, 2])
def test_loss_and_gradients_are_those_of_clip_however_the_step_is_cut(size: int) -> None:
    model = clip()
    whole = batch_of(ROWS)
    read = {name: tensor for name, tensor in whole.inputs.items() if name != "identities"}
    theirs = model(**read, return_loss=True).loss
    expected = dict(
        zip(dict(model.named_parameters()), torch.autograd.grad(theirs, list(model.parameters())), strict=True)
    )
    ctx = toy_context(model, MADE)
    batches = [batch_of(ROWS[start : start + size]) for start in range(0, len(ROWS), size)]
    comparison = Comparison(model, [(MADE, batch) for batch in batches], [MADE], ctx, lambda _: nullcontext())
    total = torch.stack([comparison.loss(MADE, model, batch, ctx).total for batch in batches]).sum() / len(ROWS)
    torch.testing.assert_close(total, theirs)
    found = torch.autograd.grad(total, list(model.parameters()))
    for (name, gradient), own in zip(expected.items(), found, strict=True):
        torch.testing.assert_close(own, gradient, rtol=1e-3, atol=1e-5, msg=lambda told, n=name: f"{n}: {told}")
    assert expected["logit_scale"].abs() > 0


def test_equal_texts_and_equal_images_are_no_negatives() -> None:
    rows = [*ROWS[:3], {**ROWS[3], "text": "a cat"}, {**ROWS[4], "image": ROWS[2]["image"]}]
    model, batch = clip(), batch_of(rows)
    with torch.no_grad():
        seen = MADE.embed(model, batch, toy_context(model, MADE))
        scores = (seen["scale"][0] * seen["text"] @ seen["image"].T).double()
        loss = float(MADE.compare(seen, toy_context(model, MADE)).sum())
    expected = 0.0
    for way in (scores, scores.T):
        for at, row in enumerate(way):
            kept = [score for other, score in enumerate(row) if (at, other) not in {(0, 3), (3, 0), (2, 4), (4, 2)}]
            expected += float(torch.stack(kept).logsumexp(0) - row[at]) / 2
    assert loss == pytest.approx(expected, rel=1e-4)


def test_a_long_text_is_cut() -> None:
    short = ImageTextContrastive(ImageTextContrastiveOptions(max_length=5))
    assert len(short.encode(ROWS[1], processor())["input_ids"]) == 5


def test_a_model_of_one_tower_is_refused() -> None:
    with pytest.raises(UserError, match="BertModel does not embed texts and images"):
        MADE.embed(bert(), batch_of(ROWS), toy_context(bert(), MADE))
    with pytest.raises(UserError, match="does not read both"):
        MADE.encode(ROWS[0], processor().tokenizer)


def test_an_objective_of_texts_alone_says_what_it_needs() -> None:
    alone = Contrastive(ContrastiveOptions(kind="dropout", anchor="text"))
    with pytest.raises(UserError, match="reads more than texts"):
        alone.encode(ROWS[0], processor())


@pytest.mark.parametrize(
    ("lacks", "told"), [("text", "no text in column `text`"), ("image", "no image in column `image`")]
)
def test_a_row_without_one_of_them_names_the_column(lacks: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        MADE.encode({**ROWS[0], lacks: None}, processor())
