"""`der`: its loss against numpy, the logits of the moment in which rows were learned, a memory that shrinks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ftk import UserError
from ftk.data.batches import as_batch
from ftk.parts import Context, Source, Task
from ftk.testing import toy_context, toy_model, toy_rows, toy_task, toy_tokenizer
from ftk_plugins.mitigations.der.der import Der
from ftk_plugins.mitigations.der.options import DerOptions
from ftk_plugins.mitigations.stored import Stored
from tests.core.loops import build
from tests.mixers import mixer_of
from tests.plugins.mitigations.two_models import gradient
from tests.plugins.objectives import classes
from tests.two_tasks import run, stream


def labelled(**options: Any) -> tuple[Der, Context, Any]:
    """A memory of labelled rows under a model that has moved since, and the logits of then."""
    made, model = classes.objective(), classes.bert(3)
    part = build("adaptation", "full")
    attached = part.attach(model)
    old = toy_task(classes.ROWS, made, "old", processor=classes.tokenizer())
    ctx = toy_context(attached, made, part, None, [old], processor=classes.tokenizer(), micro_batch_size=2)
    der = Der(DerOptions(**options))
    der.remember(old, ctx)
    inputs = made.collate(list(old.train.items)).inputs
    with torch.no_grad():
        then = attached(inputs["input_ids"], inputs["attention_mask"]).logits.numpy()
        for parameter in attached.parameters():
            parameter.mul_(0.9)
    return der, ctx, then


def drawn(source: Source, count: int) -> Any:
    """Rows of a source as the mixer draws them."""
    rows = mixer_of(source.items, source.objective, [source], 0).draw(0, 150)
    mine = [item for where, item in rows if where.name == source.name][:count]
    return as_batch(source.objective, mine)


def language(name: str, rows: int = 6, kind: str = "causal_lm") -> Task:
    made = build("objective", kind)
    return toy_task(list(toy_rows(rows)), made, name, processor=toy_tokenizer(made.head.kind))


def moment(*earlier: Task, **changes: Any) -> Context:
    head = earlier[0].objective.head.kind
    model, part = toy_model(head=head), build("adaptation", "full")
    attached, processor = part.attach(model), toy_tokenizer(head)
    return toy_context(attached, earlier[0].objective, part, None, earlier, processor=processor, **changes)


def move(ctx: Context) -> None:
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for parameter in ctx.model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))


@pytest.mark.parametrize("beta", [0.0, 0.7])
def test_the_loss_of_a_labelled_row_is_the_papers_by_numpy(beta: float) -> None:
    der, ctx, then = labelled(weight=0.3, label_weight=beta)
    (source,) = der.sources(ctx)
    batch = drawn(source, 7)
    assert len(set(batch.origins)) < 7, "rows come again and again"
    loss = source.objective.loss(ctx.model, batch, ctx)
    rows = [der.state_dict()["rows"]["old"][number] for _, number in batch.origins]
    now: Tensor = ctx.model(batch.inputs["input_ids"], batch.inputs["attention_mask"]).logits
    logits, labels = now.detach().numpy().astype(np.float64), batch.inputs["labels"][:, 0].numpy()
    squares = ((logits - then[rows]) ** 2).mean(1).sum()
    entropy = (np.log(np.exp(logits).sum(1)) - logits[np.arange(7), labels]).sum()
    assert squares > 1e-3
    assert float(loss.total.detach()) == pytest.approx(0.3 * squares + beta * entropy, rel=1e-4)
    assert (loss.count, source.share) == (7, 0.1)
    targets = torch.as_tensor(then[rows])
    plain = 0.3 * torch.nn.functional.mse_loss(now, targets, reduction="sum") / 3
    plain = plain + beta * torch.nn.functional.cross_entropy(now, batch.inputs["labels"][:, 0], reduction="sum")
    torch.testing.assert_close(gradient(loss.total, ctx.model), gradient(plain, ctx.model), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("kind", "chunks"), [("causal_lm", 1), ("causal_lm", 3), ("masked_lm", 2)])
def test_of_tokens_it_is_the_divergence_from_what_was_said(kind: str, chunks: int) -> None:
    old = language("old", kind=kind)
    ctx = moment(old, loss_chunks=chunks)
    der = Der(DerOptions(weight=0.4, label_weight=0.0, top_k=260 + 2))  # all there are
    der.remember(old, ctx)
    coarse = Der(DerOptions(weight=0.4, label_weight=0.0, top_k=5))
    coarse.remember(old, ctx)
    (source,), (least,) = der.sources(ctx), coarse.sources(ctx)
    batch = drawn(source, 4)
    shift = old.objective.shift
    inputs = {name: batch.inputs[name] for name in ("input_ids", "attention_mask") if name in batch.inputs}
    targets = batch.inputs["labels"][:, shift:] != -100
    columns = slice(0, targets.shape[1])
    with torch.no_grad():
        p = ctx.model(**inputs).logits[:, columns][targets].log_softmax(-1)
    move(ctx)
    q = ctx.model(**inputs).logits[:, columns][targets].log_softmax(-1)
    expected = 0.4 * (p.exp() * (p - q)).sum()
    loss = source.objective.loss(ctx.model, batch, ctx).total
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(gradient(loss, ctx.model), gradient(expected, ctx.model), rtol=1e-3, atol=1e-4)
    ids = p.topk(5).indices
    few = [torch.cat([x.exp().gather(1, ids), 1 - x.exp().gather(1, ids).sum(1, keepdim=True)], 1) for x in (p, q)]
    bound = 0.4 * (few[0] * (few[0] / few[1]).log()).sum()
    torch.testing.assert_close(least.objective.loss(ctx.model, batch, ctx).total, bound, rtol=5e-3, atol=5e-3)
    assert coarse.report()["kept_bytes"] < der.report()["kept_bytes"] / 20


def test_one_memory_shrinks_and_what_was_said_stays_with_its_row() -> None:
    one, two = language("one", 6), language("two", 5)
    ctx = moment(one, two)
    alone, both = Der(DerOptions(memory=4)), Der(DerOptions(memory=4))
    alone.remember(one, ctx)
    both.load_state_dict(alone.state_dict())
    move(ctx)
    both.remember(two, ctx)
    assert both.report()["rows"] == {"one": 2, "two": 2}
    first, second = (part.state_dict() for part in (alone, both))
    assert second["rows"]["one"] == first["rows"]["one"][:2]
    count = int(second["one/counts"].sum())
    assert torch.equal(second["one/counts"], first["one/counts"][:2])
    for key in ("one/values", "one/ids"):
        assert torch.equal(second[key], first[key][:count]), "as the model was when it had learned it"
    sources = both.sources(ctx)
    assert [(source.name, source.share, len(source.items)) for source in sources] == [
        ("one", 0.05, 2),
        ("two", 0.05, 2),
    ]
    for source, task in zip(sources, (one, two), strict=True):
        for item, row in zip(source.items, second["rows"][task.name], strict=True):
            np.testing.assert_array_equal(item["input_ids"], task.train.pieces[row]["input_ids"])


def test_a_reservoir_gives_up_rows_with_what_was_said_of_them() -> None:
    one, two = language("one", 6), language("two", 6)
    ctx = moment(one, two)
    first = Der(DerOptions(memory=5, choice="reservoir"))
    first.remember(one, ctx)
    before = first.state_dict()
    again = Der(DerOptions(memory=5, choice="reservoir"))
    again.load_state_dict(before)
    for part in (first, again):
        part.remember(two, ctx)
    after = first.state_dict()
    assert json.dumps(after["rows"]) == json.dumps(again.state_dict()["rows"])
    assert sum(map(len, after["rows"].values())) == 5
    assert 0 < len(after["rows"]["two"]) < 5
    places = [before["rows"]["one"].index(row) for row in after["rows"]["one"]]
    assert torch.equal(after["one/counts"], before["one/counts"][places])
    shares = [source.share for source in first.sources(ctx)]
    assert shares == pytest.approx([0.1 * len(after["rows"][name]) / 5 for name in ("one", "two")])


def test_rows_that_are_varied_anew_stay_as_they_were_when_something_was_said() -> None:
    old = language("old", kind="masked_lm")
    ctx = moment(old)
    der = Der(DerOptions())
    der.remember(old, ctx)
    (source,) = der.sources(ctx)
    seen = {number: [] for number in range(6)}
    for where, item in mixer_of(source.items, source.objective, [source], 0).draw(0, 200):
        if where.name == source.name:
            seen[item.origin[1]].append(item["input_ids"].tolist())
    assert all(len({tuple(ids) for ids in variants}) == 1 for variants in seen.values())
    assert der.state_dict()["old/counts"].tolist() == [source.objective.collate([item]).count for item in source.items]


def test_balanced_keeps_as_many_of_each_label() -> None:
    der, _, _ = labelled(choice="balanced", buffer_size=3)
    assert {classes.ROWS[row]["label"] for row in der.state_dict()["rows"]["old"]} == {"good", "bad", "even"}
    with pytest.raises(UserError, match="not one label each"):
        Der(DerOptions(choice="balanced")).remember(language("old"), moment(language("old")))


def test_only_named_tasks_are_kept_and_strange_states_refused() -> None:
    one, two = language("one"), language("two")
    ctx = moment(one, two)
    der = Der(DerOptions(tasks=("two",), buffer_size="all"))
    for task in (one, two):
        der.remember(task, ctx)
    assert der.report()["rows"] == {"two": 6}
    assert DerOptions(tasks=("two",)).earlier_tasks() == ("two",)
    with pytest.raises(ValueError, match="not all predictions"):
        der.load_state_dict({"rows": {"one": [1]}})
    with pytest.raises(ValueError, match="fisher"):
        der.load_state_dict({"fisher": 1})
    empty = replace(one, train=one.train.subset([]))
    with pytest.raises(UserError, match="nothing of `one` to keep"):
        Der(DerOptions()).remember(empty, ctx)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"buffer_size": 0}, "1 or more"),
        ({"buffer_size": 9, "memory": 9}, "leave one out"),
        ({"choice": "reservoir"}, "memory = 1000"),
        ({"when": "along", "tasks": ("old",)}, "what a stage teaches"),
        ({"weight": 0.0}, "weight"),
        ({"label_weight": -0.1}, "label_weight"),
    ],
)
def test_options_that_could_not_act_are_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        DerOptions(**wrong)
    assert DerOptions(share={"start": 0.1, "end": 0.3}).data_share() < 0.3


def test_it_keeps_the_old_task_and_what_it_said_of_it(tmp_path: Path) -> None:
    """DER alone, without the labels of the old rows: the second task undoes less of the first."""
    alone, _ = run(tmp_path, "none", stream(steps=60))
    more = '[[stage.mitigation]]\nuse = "der"\nlabel_weight = 0\nweight = 1.0\nshare = 0.4\nmemory = 6'
    kept, told = run(tmp_path, "der", stream(more, steps=60))
    assert kept[0] == alone[0]
    assert kept[1][0] < 0.75 * alone[1][0]
    assert told["der"]["rows"] == {"capitals": 6}


def test_along_a_stage_each_row_is_asked_after_a_step_of_its_own() -> None:
    """By hand: a model that moves at every step, and what it says of each row then."""
    old = language("old", 6)
    ctx = moment(old)
    ctx = replace(ctx, earlier=(), task=old, steps=4)
    options: dict[str, Any] = {"when": "along", "top_k": 300, "buffer_size": 5}
    der = Der(DerOptions(**options))
    der.begin(ctx)
    said: list[list[Tensor]] = []
    for step in range(3):  # the stage ends before the fourth
        move(ctx)
        der.after_step(replace(ctx, step=step))
        with torch.no_grad():
            items = [torch.as_tensor(item["input_ids"])[None].long() for item in old.train.pieces]
            said.append([ctx.model(ids).logits[0, :-1] for ids in items])
        again = Der(DerOptions(**options))
        again.load_state_dict(der.state_dict())
        der = again
        der.begin(ctx)
    moments = torch.randint(4, (5,), generator=ctx.generator("der along", "old")).clamp(max=2).tolist()
    assert len(set(moments)) > 1
    rows = der.state_dict()["along/old/rows"].tolist()
    assert rows == torch.randperm(6, generator=ctx.generator("der", "old")).tolist()[:5]
    der.remember(old, replace(ctx, earlier=(old,), task=None, stage=2))
    state = der.state_dict()
    assert (state["rows"], state["along"]) == ({"old": rows}, [])
    expected = torch.cat([said[step][row] for step, row in zip(moments, rows, strict=True)])
    torch.testing.assert_close(state["old/values"], expected)


def test_what_is_asked_along_a_stage_needs_nothing_before_it() -> None:
    assert DerOptions().more_needs() == ("earlier-data", "earlier-target-logits")
    assert DerOptions(when="along").more_needs() == ("earlier-target-logits",)
    assert DerOptions(tasks=("old",)).more_needs() == ("earlier-data",)
    with pytest.raises(ValueError, match="no rows of along/old"):
        Der(DerOptions()).load_state_dict({"along": ["old"]})
    assert Der(DerOptions()).state_dict() == {"rows": {}, "along": []}


def test_what_was_said_before_a_head_grew_is_held_against_the_classes_there_were() -> None:
    torch.manual_seed(0)
    ids, counts = torch.empty((2, 0), dtype=torch.int32), torch.ones(2, dtype=torch.long)
    kept, later = (Stored(torch.randn(2, classes), ids, counts) for classes in (3, 4))
    logits = torch.randn(2, 4, requires_grad=True)
    apart = kept.squares(torch.tensor([1, 0]))(logits, slice(0, 2))
    expected = ((logits[:, :3] - kept.values[[1, 0]]) ** 2).mean(1)
    torch.testing.assert_close(apart, expected)
    apart.sum().backward()
    assert logits.grad is not None
    assert not logits.grad[:, 3].any()
    both = kept.followed_by(later)
    assert torch.equal(both.values, torch.cat([kept.values, later.values[:, :3]]))
    assert both.counts.tolist() == [1, 1, 1, 1]
