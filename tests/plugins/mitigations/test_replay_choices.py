"""Which rows `replay` keeps: choices against brute force and statistics, one memory, a share on a course."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from ftk import UserError
from ftk.parts import Course, Task
from ftk.testing import toy_context, toy_model, toy_rows, toy_task
from ftk_plugins.mitigations.choosing import balanced, by_loss, features_of, herded, losses_of, reservoir
from ftk_plugins.mitigations.replay.options import ReplayOptions
from ftk_plugins.mitigations.replay.replay import Replay
from ftk_plugins.mitigations.share_options import ChangingShare, even_share
from ftk_plugins.mitigations.sharing import evenly
from ftk_plugins.models.mlp.modeling import MlpConfig, MlpForImageClassification
from ftk_plugins.objectives.image_classification.image_classification import ImageClassification
from ftk_plugins.objectives.image_classification.options import ImageClassificationOptions
from tests.core.loops import build
from tests.plugins.objectives import classes, pictures

OBJECTIVE = build("objective", "causal_lm")
MODEL = toy_model(initializer_range=0.3)


def task(name: str, rows: int, **options: Any) -> Task:
    made = build("objective", "causal_lm", **options)
    texts = [{**row, "topic": "many" if index % 4 else "few"} for index, row in enumerate(toy_rows(rows))]
    for index, row in enumerate(texts):
        row["text"] += " and more" * (index % 3)
    return toy_task(texts, made, name)


def remembered(*earlier: Task, **options: Any) -> Replay:
    replay, ctx = Replay(ReplayOptions(**options)), toy_context(MODEL, OBJECTIVE, earlier=earlier)
    for each in earlier:
        replay.remember(each, ctx)
    return replay


@pytest.mark.parametrize("seed", range(5))
def test_herding_is_the_greedy_choice(seed: int) -> None:
    features = np.random.default_rng(seed).normal(size=(9, 4))
    scaled = features / np.linalg.norm(features, axis=1, keepdims=True)
    chosen: list[int] = []
    for number in range(1, 7):
        left = [row for row in range(9) if row not in chosen]
        far = [np.linalg.norm(scaled.mean(0) - (scaled[chosen].sum(0) + scaled[row]) / number) for row in left]
        chosen.append(left[int(np.argmin(far))])
    assert herded(features, 6) == chosen
    assert sorted(herded(features, 99)) == list(range(9))


def test_herding_looks_at_mean_states_whatever_the_padding() -> None:
    old = task("old", 6)
    ctx = toy_context(MODEL, OBJECTIVE, earlier=[old], micro_batch_size=3)
    found = features_of(old, list(range(6)), ctx, "replay")
    for row, item in enumerate(old.train.encoded):
        with torch.no_grad():
            states = MODEL.model(torch.as_tensor(item["input_ids"])[None].long()).last_hidden_state
        np.testing.assert_allclose(found[row], states[0].mean(0).numpy(), rtol=1e-4, atol=1e-5)
    kept = remembered(old, choice="herding", buffer_size=2).state_dict()["old"]
    order = remembered(old, choice="herding", memory=6).state_dict()["old"]
    assert kept == sorted(order[:2])
    looked = torch.randperm(6, generator=ctx.generator("replay", "old")).tolist()
    assert order == [looked[index] for index in herded(found[looked], 6)]


def test_herding_takes_the_last_layer_of_a_perceptron() -> None:
    made = ImageClassification(ImageClassificationOptions(labels=("bar", "cup", "dot")))
    model = MlpForImageClassification(MlpConfig(image_size=8, hidden_size=6, num_labels=3)).eval()
    old = toy_task(pictures.ROWS, made, "old", processor=pictures.processor())
    found = features_of(old, range(5), toy_context(model, made, micro_batch_size=2), "replay")
    with torch.no_grad():
        expected = model.mlp(torch.as_tensor(np.stack([item["pixel_values"] for item in old.train.encoded])))
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("prefer", ["highest", "lowest", "median"])
def test_rows_are_kept_by_their_loss_per_target(prefer: Any) -> None:
    old = task("old", 7)
    ctx = toy_context(MODEL, OBJECTIVE, micro_batch_size=4)
    losses = []
    for item in old.train.encoded:
        ids = torch.as_tensor(item["input_ids"])[None].long()
        with torch.no_grad():
            losses.append(float(MODEL(ids, labels=ids).loss))
    np.testing.assert_allclose(losses_of(old, list(range(7)), ctx), losses, rtol=1e-4)
    wanted = {"highest": max(losses), "lowest": min(losses), "median": float(np.median(losses))}[prefer]
    (kept,) = remembered(old, choice="loss", prefer=prefer, buffer_size=1).state_dict()["old"]
    assert losses[kept] == pytest.approx(wanted)
    assert by_loss(np.array([3.0, 1.0, 2.0]), prefer)[0] == {"highest": 0, "lowest": 1, "median": 2}[prefer]


def test_the_loss_of_labels_is_told_row_by_row_and_of_few_candidates() -> None:
    made, model = classes.objective(), classes.bert(3)
    old = toy_task(classes.ROWS, made, "old", processor=classes.tokenizer())
    ctx = toy_context(model, made, processor=classes.tokenizer())
    batch = made.collate(list(old.train.encoded))
    with torch.no_grad():
        logits = model(batch.inputs["input_ids"], batch.inputs["attention_mask"]).logits
    expected = torch.nn.functional.cross_entropy(logits, batch.inputs["labels"][:, 0], reduction="none")
    np.testing.assert_allclose(losses_of(old, range(5), ctx), expected.numpy(), rtol=1e-4)
    many = task("many", 12)
    highest = {"choice": "loss", "prefer": "highest", "buffer_size": 1}
    looked = torch.randperm(12, generator=toy_context(MODEL, OBJECTIVE).generator("replay", "many"))[:2].tolist()
    assert remembered(many, **highest, candidates=2).state_dict()["many"][0] in looked


def test_balanced_keeps_as_many_of_each_class() -> None:
    old = task("old", 24)  # a quarter of its rows are of few
    kept = remembered(old, choice="balanced", class_column="topic", buffer_size=8).state_dict()["old"]
    assert Counter(old.train.row(row)["topic"] for row in kept) == {"few": 4, "many": 4}
    order = remembered(old, choice="balanced", class_column="topic", memory=24).state_dict()["old"]
    for size in range(1, 13):
        counts = Counter(old.train.row(row)["topic"] for row in order[:size])
        assert abs(counts["few"] - counts["many"]) <= 1
    assert Counter(old.train.row(row)["topic"] for row in order) == {"few": 6, "many": 18}
    assert balanced([4, 1, 3, 2], {1: "a", 2: "b", 3: "a", 4: "a"}) == [4, 2, 1, 3]
    labelled = toy_task(classes.ROWS, classes.objective(), "films", processor=classes.tokenizer())
    kept = remembered(labelled, choice="balanced", buffer_size=3).state_dict()["films"]
    assert {classes.ROWS[row]["label"] for row in kept} == {"good", "bad", "even"}
    with pytest.raises(UserError, match="not one label each"):
        remembered(old, choice="balanced")
    with pytest.raises(UserError, match="no column `colour`"):
        remembered(old, choice="balanced", class_column="colour")


def test_a_reservoir_holds_every_row_that_went_by_with_one_chance() -> None:
    counts: Counter[tuple[str, int]] = Counter()
    for seed in range(3000):
        rng = np.random.default_rng(seed)
        held = reservoir([], 0, "one", 8, 4, rng)
        held = reservoir(held, 8, "two", 4, 4, rng)
        counts.update(held)
    shares = np.array(
        [counts[key] for key in [*(("one", row) for row in range(8)), *(("two", row) for row in range(4))]]
    )
    assert shares.sum() == 4 * 3000
    # Each is Binomial(3000, 1/3), with a standard deviation of 26.
    assert np.abs(shares - 1000).max() < 4 * 26
    chi = float((np.square(shares - 1000) / 1000 / (2 / 3)).sum())
    assert chi < 31  # of 11 degrees of freedom, one time in a thousand


def test_a_reservoir_goes_on_in_the_next_stage() -> None:
    one, two = task("one", 30), task("two", 10)
    options: dict[str, Any] = {"choice": "reservoir", "memory": 12}
    both = remembered(one, two, **options)
    first = remembered(one, **options)
    again = Replay(ReplayOptions(**options))
    again.load_state_dict(json.loads(json.dumps(first.state_dict())))
    again.remember(two, toy_context(MODEL, OBJECTIVE, earlier=[one, two]))
    assert again.state_dict() == both.state_dict()
    assert sum(both.report()["rows"].values()) == 12
    assert set(both.state_dict()["one"]) < set(first.state_dict()["one"])


def test_one_memory_shrinks_each_tasks_part_as_tasks_come() -> None:
    one, two, three = task("one", 30), task("two", 3), task("three", 20)
    sizes = [remembered(*tasks, memory=12).report()["rows"] for tasks in ([one], [one, two], [one, two, three])]
    assert sizes == [{"one": 12}, {"one": 9, "two": 3}, {"one": 4, "two": 3, "three": 5}]
    alone, all_three = (remembered(*tasks, memory=12).state_dict() for tasks in ([one], [one, two, three]))
    assert all_three["one"] == alone["one"][:4], "what is kept longest was chosen first"
    assert evenly(10, [10, 10, 10]) == [3, 3, 4]
    assert evenly(100, [1, 2]) == [1, 2]


def test_a_share_may_be_on_a_course() -> None:
    old, older = task("old", 6), task("older", 12)
    share = {"start": 0.3, "end": 0.06, "over": 0.5}
    replay = remembered(old, older, share=share, by="rows")
    first, second = replay.sources(toy_context(MODEL, OBJECTIVE, earlier=[old, older]))
    assert isinstance(first.share, Course)
    assert isinstance(second.share, Course)
    assert (first.share.start, second.share.start) == pytest.approx((0.1, 0.2))
    assert first.share.at(0.25) + second.share.at(0.25) == pytest.approx(0.18)
    assert first.share.at(0.9) + second.share.at(0.9) == pytest.approx(0.06)
    line = np.linspace(0, 1, 200001)
    course = Course(0.3, 0.06, 0.5)
    mixed = np.mean([course.at(done) / (1 - course.at(done)) for done in line])
    assert ReplayOptions(share=share).data_share() == pytest.approx(mixed / (1 + mixed), rel=1e-4)
    assert even_share(ChangingShare(start=0.0, end=0.5)) > 0
    assert even_share(0.2) == 0.2


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"choice": "reservoir"}, "memory = 1000"),
        ({"memory": 5, "buffer_size": 9}, "leave one out"),
        ({"prefer": "highest"}, 'choice = "loss"'),
        ({"candidates": 9}, "herding"),
        ({"choice": "loss", "class_column": "topic"}, "balanced"),
        ({"share": {"start": 0.2, "end": 0.2}}, "as a number"),
        ({"share": {"start": 0.2, "end": 1.0}}, "less than 1"),
        ({"choice": "loss", "candidates": 0}, "1 or more"),
    ],
)
def test_options_that_could_not_act_are_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ReplayOptions(**wrong)


def test_a_plan_looks_at_no_values() -> None:
    old = task("old", 9)
    ctx = replace(toy_context(MODEL, OBJECTIVE, earlier=[old]), model=None)
    for choice in ("loss", "herding"):
        replay = Replay(ReplayOptions(choice=choice, buffer_size=4))
        replay.rehearse(old, ctx)
        assert replay.report() == {"rows": {"old": 4}}
        assert replay.options.choice == choice
