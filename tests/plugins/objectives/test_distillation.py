"""The objective `distillation`: its loss by the formula, however it is cut, and where it is another objective's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from ftk.parts import Batch, Objective
from ftk.testing import toy_context, toy_model, toy_tokenizer
from ftk_plugins.objectives.instruction.instruction import Instruction
from ftk_plugins.objectives.token_loss import LateLogits
from tests.plugins.objectives import classes, pictures, taught
from tests.plugins.objectives.taught import KINDS, apart, objective
from tests.plugins.objectives.text_rows import TEXTS


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return taught.teachers(tmp_path_factory.mktemp("teachers"))


def texts(teachers: Path, **options: Any) -> tuple[Objective, Batch]:
    made = objective(teachers / "tokens", {"use": "causal_lm"}, **options)
    return made, made.collate(made.encode_batch([{"text": text} for text in TEXTS], toy_tokenizer()))


def by_hand(student: Any, teacher: Any, batch: Batch, weight: float, temperature: float, smoothing: float) -> Any:
    """Forward KL with torch's own functions, over all positions, of which those without a target are dropped."""
    ids, labels = batch.inputs["input_ids"], batch.inputs["labels"][:, 1:].flatten()
    logits, taught = (model(input_ids=ids).logits[:, :-1].flatten(0, 1) for model in (student, teacher))
    hard = cross_entropy(logits, labels, reduction="sum", label_smoothing=smoothing)
    soft = torch.nn.functional.kl_div(
        (logits / temperature).log_softmax(-1),
        (taught[:, : logits.shape[1]].detach() / temperature).softmax(-1),
        reduction="none",
    ).sum(-1)[labels != -100]
    return (1 - weight) * hard + weight * temperature**2 * soft.sum()


@pytest.mark.parametrize(("weight", "temperature", "smoothing"), [(0.5, 2.0, 0.0), (0.9, 1.0, 0.1), (1.0, 3.0, 0.0)])
@pytest.mark.parametrize("chunks", [1, 3])
def test_the_loss_of_tokens_and_its_gradients_are_the_formula(
    teachers: Path, chunks: int, weight: float, temperature: float, smoothing: float
) -> None:
    made, batch = texts(teachers, weight=weight, temperature=temperature)
    student = toy_model(1, initializer_range=0.3).train()
    ctx = toy_context(student, made, loss_chunks=chunks, label_smoothing=smoothing)
    loss = made.loss(student, batch, ctx)
    assert isinstance(loss.outputs, LateLogits) == (chunks > 1)
    expected = by_hand(student, made.teacher(ctx), batch, weight, temperature, smoothing)  # type: ignore[attr-defined]
    torch.testing.assert_close(loss.total, expected, rtol=1e-5, atol=1e-4)
    assert loss.count == batch.count
    assert_same_gradients(student, loss.total, expected)


def assert_same_gradients(model: Any, one: Any, other: Any) -> None:
    weights = list(model.parameters())
    for found, expected in zip(torch.autograd.grad(one, weights), torch.autograd.grad(other, weights), strict=True):
        # A key's bias has no gradient but rounding.
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * max(float(expected.abs().max()), 1e-2))


@pytest.mark.parametrize("kind", KINDS)
def test_chunks_give_every_divergence(teachers: Path, kind: str) -> None:
    made, batch = texts(teachers, divergence=kind)
    student = toy_model(1, initializer_range=0.3).train()
    whole, cut = (made.loss(student, batch, toy_context(student, made, loss_chunks=chunks)) for chunks in (1, 4))
    torch.testing.assert_close(whole.total, cut.total, rtol=1e-5, atol=0)
    assert_same_gradients(student, cut.total, whole.total)
    with torch.no_grad():
        silent = made.loss(student, batch, toy_context(student, made, loss_chunks=4))
    torch.testing.assert_close(silent.total, whole.total, rtol=1e-5, atol=0)


def test_chunks_of_two_models_in_bf16_are_the_whole(teachers: Path) -> None:
    made, batch = texts(teachers, teacher_dtype="bfloat16")
    student = toy_model(1, initializer_range=0.3).train()
    totals = []
    for chunks in (1, 4):
        ctx = toy_context(student, made, loss_chunks=chunks, precision="bf16")
        with ctx.autocast():
            totals.append(made.loss(student, batch, ctx).total)
    torch.testing.assert_close(*totals, rtol=1e-2, atol=0)
    assert {weight.dtype for weight in made.teacher(ctx).parameters()} == {torch.bfloat16}  # type: ignore[attr-defined]


def test_a_student_that_is_the_teacher_learns_nothing_from_it(teachers: Path) -> None:
    made, batch = texts(teachers, weight=1.0)
    student = toy_model(5, vocab_size=272, hidden_size=48, initializer_range=0.3).train()
    loss = made.loss(student, batch, toy_context(student, made))
    assert abs(loss.total.item()) / loss.count < 1e-6
    assert all(float(g.abs().max()) < 1e-4 for g in torch.autograd.grad(loss.total, list(student.parameters())))


def test_a_step_in_parts_is_the_whole_step(teachers: Path) -> None:
    made, whole = texts(teachers)
    student = toy_model(1).train()
    rows = made.encode_batch([{"text": text} for text in TEXTS], toy_tokenizer())
    parts = [made.loss(student, made.collate([row]), toy_context(student, made)) for row in rows]
    assert sum(part.count for part in parts) == whole.count
    total = made.loss(student, whole, toy_context(student, made)).total
    assert_same_gradients(student, torch.stack([part.total for part in parts]).sum(), total)


def test_it_is_the_other_objective_wherever_a_model_is_measured(teachers: Path) -> None:
    row = {"instruction": "Name it.", "output": "The sea"}
    made = objective(teachers / "gone", {"use": "instruction"})
    assert isinstance(made, Instruction)
    student = toy_model(1)
    batch = made.collate([made.encode(row, toy_tokenizer())])
    with torch.no_grad():
        logits = student(input_ids=batch.inputs["input_ids"]).logits[:, :-1].flatten(0, 1)
    expected = cross_entropy(logits, batch.inputs["labels"][:, 1:].flatten(), reduction="sum")
    torch.testing.assert_close(made.loss(student, batch, toy_context(student, made)).total, expected)
    assert made.answer(row) == "The sea"


def test_the_teacher_is_frozen_still_and_no_part_of_the_model(teachers: Path) -> None:
    made, batch = texts(teachers)
    student = toy_model(1).train()
    ctx = toy_context(student, made)
    made.begin(ctx)
    teacher = made.teacher(ctx)  # type: ignore[attr-defined]
    torch.autograd.backward(made.loss(student, batch, ctx).total)
    made.begin(ctx)
    assert made.teacher(ctx) is teacher, "loaded once"  # type: ignore[attr-defined]
    assert not teacher.training
    assert all(weight.grad is None and not weight.requires_grad for weight in teacher.parameters())
    assert not {id(weight) for weight in teacher.parameters()} & {id(weight) for weight in student.parameters()}
    assert made.state_dict() == {}


def test_masked_tokens_are_distilled_where_they_are(teachers: Path) -> None:
    tokenizer = toy_tokenizer("masked_lm")
    made = objective(teachers / "masked", {"use": "masked_lm", "probability": 0.5}, weight=1.0, temperature=1.0)
    items = made.encode_batch([{"text": text} for text in TEXTS], tokenizer)
    batch = made.collate([made.vary(item, tokenizer, np.random.default_rng(0)) for item in items])
    student = toy_model(1, "masked_lm", initializer_range=0.3, attention_probs_dropout_prob=0.0).train()
    ctx = toy_context(student, made, processor=tokenizer)
    at = batch.inputs["labels"] != -100
    read = {name: batch.inputs[name] for name in ("input_ids", "attention_mask")}
    teacher = toy_model(5, "masked_lm", initializer_range=0.3)
    logits, taught = (model(**read).logits[at].detach().numpy() for model in (student, teacher))
    expected = sum(apart(q, p, "forward_kl", 1.0) for q, p in zip(logits, taught, strict=True))
    assert made.loss(student, batch, ctx).total.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kind", ["single", "weighed", "multiple"])
def test_labels_are_distilled(teachers: Path, kind: str) -> None:
    of = {"use": "classification", **classes.KINDS[kind]}
    names = ("bad", "even", "good") if kind != "multiple" else ("film", "long", "short")
    teacher = classes.bert(hidden_size=24)
    made = objective(teachers / "labels", {**of, "labels": names}, weight=0.4)
    made._teacher = teacher  # type: ignore[attr-defined]
    batch = made.collate(made.encode_batch(classes.ROWS, classes.tokenizer()))
    student = classes.bert(hidden_dropout_prob=0.0).train()
    loss = made.loss(student, batch, toy_context(student, made, processor=classes.tokenizer()))
    hard = classes.objective(**classes.KINDS[kind]).loss(student, batch, toy_context(student, made)).total
    read = {name: batch.inputs[name] for name in ("input_ids", "attention_mask")}
    logits, taught = (model(**read).logits.double() for model in (student, teacher))
    if kind == "multiple":  # a cross-entropy with the teacher's own entropy taken off is the divergence
        p = (taught / 2).sigmoid().detach()
        own = binary_cross_entropy_with_logits(taught / 2, p, reduction="none")
        soft = (binary_cross_entropy_with_logits(logits / 2, p, reduction="none") - own).mean(1)
    else:
        p = (taught / 2).softmax(1).detach()
        soft = cross_entropy(logits / 2, p, reduction="none") - cross_entropy(taught / 2, p, reduction="none")
    expected = 0.6 * hard.double() + 0.4 * 4 * soft.sum()
    torch.testing.assert_close(loss.total.double(), expected, rtol=1e-4, atol=1e-4)
    assert_same_gradients(student, loss.total, expected)


def test_images_are_distilled_as_both_see_them_mixed(teachers: Path) -> None:
    of = {"use": "image_classification", "labels": ("bar", "cup", "dot"), "mixup": 1.0}
    made = objective(teachers / "images", of, weight=1.0, temperature=1.0)
    encoded = made.encode_batch(pictures.ROWS, pictures.processor())
    mixed = [made.augment(row, lambda: encoded[3], None, np.random.default_rng(0)) for row in encoded[:3]]
    batch = made.collate(mixed)
    student = pictures.vit(initializer_range=0.5, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0).train()
    loss = made.loss(student, batch, toy_context(student, made, processor=pictures.processor()))
    seen = torch.from_numpy(np.stack([item["pixel_values"] for item in mixed]))
    logits, told = (
        model(pixel_values=seen).logits.detach().numpy() for model in (student, pictures.vit(hidden_size=24))
    )
    expected = sum(apart(q, p, "forward_kl", 1.0) for q, p in zip(logits, told, strict=True))
    assert loss.total.item() == pytest.approx(expected, rel=1e-4)


def test_what_the_rows_complete_goes_to_the_other_objective(teachers: Path) -> None:
    from datasets import Dataset

    made = objective(teachers / "labels", {"use": "classification", "class_weights": "balanced"})
    values = made.completed(Dataset.from_list(classes.ROWS))
    again = objective(teachers / "labels", values["of"])
    assert again.head.labels == ("bad", "even", "good")
    assert set(values["of"]["class_weights"]) == set(again.head.labels)
    assert texts(teachers)[0].completed(Dataset.from_list([{"text": "a"}])) == {}
