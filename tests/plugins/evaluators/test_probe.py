"""The linear probe: against scikit-learn on features taken by hand, of texts and of images."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from ftk import UserError
from ftk.parts import Metric, Task
from ftk.running.measuring import evaluating
from ftk.testing import toy_context, toy_examples
from ftk_plugins.evaluators.probe.options import ProbeOptions
from ftk_plugins.evaluators.probe.probe import Probe
from ftk_plugins.evaluators.probe.regression import fitted
from ftk_plugins.objectives.image_classification.image_classification import ImageClassification
from ftk_plugins.objectives.image_classification.options import ImageClassificationOptions
from tests.plugins.objectives import classes, pictures

RANDOM = np.random.default_rng(0)
WORDS = {"good": "abcdef", "bad": "defghi", "even": "ghiabc"}


def texts(count: int) -> list[dict[str, Any]]:
    """Texts whose letters tell their class, mostly."""
    names = RANDOM.choice(list(WORDS), count)
    return [
        {"text": "".join(RANDOM.choice(list(WORDS[name]), RANDOM.integers(2, 9))), "label": str(name)} for name in names
    ]


TRAIN, TEST = texts(60), texts(40)


def task_of(objective: Any, train: list[dict[str, Any]], test: list[dict[str, Any]], processor: Any) -> Task:
    return Task(
        "toy", objective, toy_examples(train, objective, processor), test=toy_examples(test, objective, processor)
    )


def measure(model: nn.Module, task: Task, processor: Any, context: Any = None, **options: Any) -> dict[str, Metric]:
    chosen = ProbeOptions(**{"measures": ("accuracy", "loss"), **options})
    ctx = toy_context(model, task.objective, processor=processor, **(context or {}))
    with evaluating(model):
        found = Probe(chosen).measure(model, task, ctx)
    assert tuple(metric.name for metric in found) == chosen.metrics()
    return {metric.name: metric for metric in found}


def states(model: Any, rows: list[dict[str, Any]]) -> list[torch.Tensor]:
    """The last hidden states of each text, taken one by one."""
    found = []
    for row in rows:
        ids = torch.tensor([classes.tokenizer()(row["text"])["input_ids"]])
        with torch.no_grad():
            found.append(model.base_model(input_ids=ids).last_hidden_state[0].double())
    return found


POOLED = {"mean": lambda each: each.mean(0), "cls": lambda each: each[0], "last": lambda each: each[-1]}


@pytest.mark.parametrize(
    ("make", "pooling", "penalty"),
    [
        (classes.bert, "mean", 1.0),
        (classes.bert, "cls", 8.0),
        (classes.llama, "last", 1.0),
        (classes.llama, "mean", 0.3),
    ],
)
def test_it_is_what_scikit_learn_finds_on_the_same_features(make: Any, pooling: str, penalty: float) -> None:
    model, objective = make(), classes.objective(TRAIN)
    task = task_of(objective, TRAIN, TEST, classes.tokenizer())
    found = measure(model, task, classes.tokenizer(), pooling=pooling, penalty=penalty)
    features, others = (
        torch.stack([POOLED[pooling](each) for each in states(model, rows)]).numpy() for rows in (TRAIN, TEST)
    )
    judge = make_pipeline(StandardScaler(), LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=10_000))
    judge.fit(features, [row["label"] for row in TRAIN])
    right = [row["label"] for row in TEST]
    assert found["probe_accuracy"].value == pytest.approx(accuracy_score(right, judge.predict(others)))
    expected = log_loss(right, judge.predict_proba(others), labels=judge.classes_)
    assert found["probe_loss"].value == pytest.approx(expected, rel=1e-3)
    assert found["probe_accuracy"].higher_is_better
    assert not found["probe_loss"].higher_is_better
    for metric in found.values():
        low, high = metric.interval() or (0, 0)
        assert low < metric.value < high


def test_the_regression_s_weights_are_scikit_learn_s() -> None:
    values, right = RANDOM.normal(size=(80, 5)), RANDOM.integers(3, size=80)
    values[:, 4] = 2.0  # tells nothing and has no spread
    found = fitted(torch.from_numpy(values), torch.from_numpy(right), 3, 2.0)
    scaled = StandardScaler().fit_transform(values)
    judge = LogisticRegression(C=0.5, tol=1e-12, max_iter=10_000).fit(scaled, right)
    weight, bias = found.weight.numpy().T, found.bias.numpy()
    assert weight == pytest.approx(judge.coef_, abs=1e-4)
    assert bias - bias.mean() == pytest.approx(judge.intercept_ - judge.intercept_.mean(), abs=1e-4)


def test_images_too(tmp_path: Any) -> None:
    names = [row["label"] for row in pictures.ROWS]
    objective = ImageClassification(ImageClassificationOptions())
    values = objective.completed(Dataset.from_list(pictures.ROWS))
    objective = ImageClassification(ImageClassificationOptions(**values))
    model = pictures.vit()
    found = measure(model, task_of(objective, pictures.ROWS, pictures.ROWS, pictures.processor()), pictures.processor())
    pixels = objective.collate(objective.encode_batch(pictures.ROWS, pictures.processor())).inputs["pixel_values"]
    with torch.no_grad():
        features = model.base_model(pixel_values=pixels).last_hidden_state.mean(1).double().numpy()
    judge = make_pipeline(StandardScaler(), LogisticRegression(tol=1e-10, max_iter=10_000)).fit(features, names)
    expected = log_loss(names, judge.predict_proba(features), labels=judge.classes_)
    assert found["probe_loss"].value == pytest.approx(expected, rel=1e-3)


def test_the_head_does_not_matter_and_the_body_does() -> None:
    model, task = classes.bert(), task_of(classes.objective(TRAIN), TRAIN, TEST, classes.tokenizer())
    before = measure(model, task, classes.tokenizer())
    with torch.no_grad():
        model.classifier.weight.zero_()
    assert measure(model, task, classes.tokenizer()) == before
    with torch.no_grad():
        for parameter in model.bert.encoder.parameters():
            parameter.zero_()
    assert measure(model, task, classes.tokenizer()) != before


def test_it_is_fitted_to_the_training_rows_that_its_seed_draws() -> None:
    model, objective = classes.bert(), classes.objective(TRAIN)
    task = task_of(objective, TRAIN, TEST, classes.tokenizer())
    few = measure(model, task, classes.tokenizer(), train_rows=12)
    assert measure(model, task, classes.tokenizer(), train_rows=12) == few
    assert measure(model, task, classes.tokenizer(), train_rows=12, seed=1) != few
    assert measure(model, task, classes.tokenizer(), train_rows=60) != few
    # What the test rows say of themselves plays no part: with their labels turned, the loss is another, of one probe.
    turned = [{**row, "label": {"good": "bad", "bad": "even", "even": "good"}[row["label"]]} for row in TEST]
    swapped = measure(model, task_of(objective, TRAIN, turned, classes.tokenizer()), classes.tokenizer())
    whole = measure(model, task, classes.tokenizer())
    assert swapped["probe_accuracy"].value < whole["probe_accuracy"].value


def test_processes_share_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    model, task = classes.bert(), task_of(classes.objective(TRAIN), TRAIN, TEST, classes.tokenizer())
    alone, pieces = measure(model, task, classes.tokenizer()), []

    def gather(found: list[Any], own: list[Any]) -> None:
        pieces.append(own)
        raise InterruptedError

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    for rank in range(2):
        with pytest.raises(InterruptedError):
            measure(model, task, classes.tokenizer(), {"rank": rank, "world_size": 2})
    both = list(pieces)
    assert sorted(torch.cat([places for own in both for places, _, _ in own]).tolist()) == list(range(60))
    features, rights = (torch.cat([piece[part] for own in both for piece in own]) for part in (1, 2))
    assert alone["probe_accuracy"].value > 0.4
    assert len(features) == len(rights) == 60


@pytest.mark.parametrize("kind", ["multiple"])
def test_rows_of_several_classes_are_refused(kind: str) -> None:
    objective = classes.objective(**classes.KINDS[kind])
    task = task_of(objective, classes.ROWS, classes.ROWS, classes.tokenizer())
    with pytest.raises(UserError, match="task `toy`: `probe` needs rows of one class each"):
        measure(classes.bert(), task, classes.tokenizer())


def test_a_model_without_a_body_of_its_own_is_refused() -> None:
    class Plain(nn.Module):
        pass

    task = task_of(classes.objective(TRAIN), TRAIN, TEST, classes.tokenizer())
    with pytest.raises(UserError, match="a Plain does not tell it from its head"):
        measure(Plain(), task, classes.tokenizer())


def test_a_task_without_test_rows_is_refused() -> None:
    task = task_of(classes.objective(TRAIN), TRAIN, TEST, classes.tokenizer())
    with pytest.raises(UserError, match="has no test rows"):
        measure(classes.bert(), replace(task, test=None), classes.tokenizer())
