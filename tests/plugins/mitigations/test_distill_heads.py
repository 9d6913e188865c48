"""`distill` over labels and other heads: who is asked what, and what that keeps."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import ftk
from ftk.parts import Head, Task
from ftk.parts.heads import Heads
from ftk.testing import toy_context, toy_task
from ftk_plugins.mitigations.distill.distill import Distill
from ftk_plugins.mitigations.distill.heads import Lesson
from ftk_plugins.mitigations.distill.options import DistillOptions
from ftk_plugins.mitigations.predicted import as_read_by, can_read, rows_of_targets
from tests.core.loops import build
from tests.plugins.mitigations.two_models import gradient, objective
from tests.plugins.objectives import classes
from tests.system.small import HEAD, written

FACTS = 'use = "world_facts", languages = "en", templates_per_fact = 1, limit = 12'
TWO_STAGES = f"""{HEAD.replace("steps = 9", "steps = 60").replace("checkpoint_every = 3", "checkpoint_every = 0")}
[data]
overlap = "allow"
[adaptation]
use = "full"
[[evaluator]]
use = "perplexity"
MORE
[[stage]]
name = "capitals"
[stage.data]
train = {{{{ {FACTS}, relations = "capital" }}}}
test = {{{{ {FACTS}, relations = "capital" }}}}
[[stage]]
name = "currencies"
[stage.data]
train = {{{{ {FACTS}, relations = "currency" }}}}
test = {{{{ {FACTS}, relations = "currency" }}}}
""".replace("{{", "{").replace("}}", "}")


@pytest.mark.parametrize("kind", ["single", "multiple"])
def test_labels_are_held_against_a_second_model(kind: str) -> None:
    made = classes.objective(**classes.KINDS[kind])
    model = classes.bert(len(made.head.labels))
    start = deepcopy(model)
    part = build("adaptation", "full")
    attached = part.attach(model)
    with torch.no_grad():
        attached.classifier.weight.mul_(0.5)
    task: Task = toy_task(classes.ROWS, made, "new", processor=classes.tokenizer())
    earlier = toy_task(classes.ROWS, made, "old", processor=classes.tokenizer())
    ctx = toy_context(attached, made, part, task, [earlier])
    batch = made.collate(list(task.train.items))
    loss = made.loss(attached, batch, ctx)
    inputs = {name: batch.inputs[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        right = start(**inputs).logits / 2
    said = loss.outputs["logits"] / 2
    if kind == "single":
        p, q = right.softmax(1), said.softmax(1)
        expected = 4 * (p * (p / q).log()).sum()
    else:
        p, q = right.sigmoid(), said.sigmoid()
        expected = 4 * (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean(1).sum()
    for teacher in ("live", "cached"):
        distill = Distill(DistillOptions(teacher=teacher))
        distill.begin(ctx)
        numbered = replace(batch, origins=[("train", number) for number in range(len(classes.ROWS))])
        found = distill.penalty(numbered, loss, ctx)
        torch.testing.assert_close(found, expected)


def test_another_head_is_asked_about_the_new_rows() -> None:
    """The paper's setting: new labels, and the old classifier asked about the new texts."""
    old, new = (classes.objective(label=label) for label in ("label", "other"))
    models = {old.head: classes.bert(3), new.head: classes.bert(len(new.head.labels))}
    start = deepcopy(models[old.head])
    heads = Heads(models, new.head, classes.tokenizer(), lambda model: model.base_model)
    with torch.no_grad():
        heads.models[old.head].bert.embeddings.word_embeddings.weight.copy_(
            start.bert.embeddings.word_embeddings.weight
        )
    start.bert.load_state_dict(heads.model.bert.state_dict())
    part = build("adaptation", "full")
    attached = part.attach(heads.model)
    with torch.no_grad():
        attached.bert.embeddings.word_embeddings.weight.mul_(0.7)
    tasks = [
        toy_task(classes.ROWS, made, name, processor=classes.tokenizer()) for made, name in ((new, "new"), (old, "old"))
    ]
    ctx = toy_context(attached, new, part, tasks[0], tasks[1:], heads=heads.following(attached))
    batch = new.collate(list(tasks[0].train.items))
    batch = replace(batch, origins=[("train", number) for number in range(len(classes.ROWS))])
    loss = new.loss(attached, batch, ctx)
    inputs = {name: batch.inputs[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        p = (start(**inputs).logits / 2).softmax(1)
    q = (ctx.heads.models[old.head](**inputs).logits / 2).softmax(1)
    expected = 4 * (p * (p / q).log()).sum()
    assert expected > 1e-2
    for teacher in ("live", "cached"):
        distill = Distill(DistillOptions(teacher=teacher))
        distill.begin(ctx)
        found = distill.penalty(batch, loss, ctx)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(gradient(found, attached), gradient(expected, attached), rtol=1e-3, atol=1e-5)
        assert distill.report()["heads"] == ["old"]


@pytest.mark.parametrize("other", ["causal_lm", "masked_lm"])
def test_a_language_model_is_asked_about_every_token_of_a_row_with_a_label(other: str) -> None:
    made, words = classes.objective(), objective(other)
    batch = made.collate(list(toy_task(classes.ROWS, made, processor=classes.tokenizer()).train.items))
    read = as_read_by(words, batch)
    rows = rows_of_targets(words, read)
    lengths = torch.tensor(batch.lengths)
    assert torch.bincount(rows).tolist() == (lengths - words.shift).tolist()
    assert can_read(words.head, made.head)
    assert not can_read(words.head, Head("image_classification"))
    lesson = Lesson("words", words, made)
    assert lesson.targets(batch, len(classes.ROWS)).tolist() == [1] * len(classes.ROWS)


def test_it_keeps_what_new_rows_show_of_the_old_task(tmp_path: Path) -> None:
    """Names are learned, then other names in the same words: with `distill` the old ones are forgotten less."""
    kept = {}
    for name, more in {"none": "", "distill": '[[mitigation]]\nuse = "distill"\nrows = "both"\nshare = 0.3'}.items():
        result = ftk.run(written(tmp_path / name, TWO_STAGES.replace("MORE", more)), output=tmp_path / name / "run")
        kept[name] = result.report["matrix"]["perplexity"][-1]
    assert kept["distill"][0] < 0.8 * kept["none"][0], kept
    assert result.report["stages"][1]["mitigations"]["distill"]["teacher"] == "live"


@pytest.mark.parametrize("teacher", ["live", "cached"])
def test_where_classes_come_with_the_stages_those_of_before_are_compared(teacher: str) -> None:
    names = ["bad", "even", "good"]
    old, new = (classes.objective(labels=names, incremental=True, taught=its) for its in (["bad", "good"], ["even"]))
    model = classes.bert(3)
    start, part = deepcopy(model), build("adaptation", "full")
    attached = part.attach(model)
    with torch.no_grad():
        attached.classifier.weight.mul_(0.5)
    rows = {
        name: [row for row in classes.ROWS if (row["label"] == "even") == (name == "new")] for name in ("new", "old")
    }
    tasks = {
        name: toy_task(rows[name], made, name, processor=classes.tokenizer())
        for name, made in (("new", new), ("old", old))
    }
    ctx = toy_context(attached, new, part, tasks["new"], [tasks["old"]], processor=classes.tokenizer())
    distill = Distill(DistillOptions(teacher=teacher))
    distill.begin(ctx)
    batch = replace(new.collate(list(tasks["new"].train.items)), origins=[("train", 0)])
    loss = new.loss(attached, batch, ctx)
    inputs = {name: batch.inputs[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        p = (start(**inputs).logits[:, [0, 2]] / 2).softmax(1)
    q = (attached(**inputs).logits[:, [0, 2]] / 2).softmax(1)
    expected = 4 * (p * (p / q).log()).sum()
    assert expected > 1e-4
    torch.testing.assert_close(distill.penalty(batch, loss, ctx), expected)


def test_of_several_tasks_in_a_stage_each_row_is_asked_by_its_own_head() -> None:
    one, other = classes.objective(), classes.objective(label="other")
    models = {one.head: classes.bert(3), other.head: classes.bert(len(other.head.labels))}
    heads = Heads(models, one.head, classes.tokenizer(), lambda model: model.base_model, [other.head])
    part = build("adaptation", "full")
    attached = part.attach(heads.model)
    pairs = (("both/one", one), ("both/other", other), ("old", other))
    first, second, earlier = (toy_task(classes.ROWS, made, name, processor=classes.tokenizer()) for name, made in pairs)
    ctx = toy_context(attached, one, part, first, [earlier], heads=heads.following(attached), beside=[second])
    distill = Distill(DistillOptions())
    distill.begin(ctx)
    assert distill.report()["heads"] == ["both/other", "old"], "of `one` the head is new, and that of `old` is asked"
    for name, made in (("one", one), ("other", other)):
        batch = replace(made.collate(list(first.train.items)[:2] if name == "one" else list(second.train.items)[:2]))
        batch = replace(batch, origins=[(f"train/{name}", 0), (f"train/{name}", 1)])
        here = ctx.through(made)
        found = distill.penalty(batch, made.loss(here.model, batch, here), here)
        assert found is not None
        assert found.item() == pytest.approx(0, abs=1e-6), "nothing has moved"
