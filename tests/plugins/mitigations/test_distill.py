"""`distill` against two models held side by side by hand; a cached teacher against a live one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn.functional import log_softmax

from ftk import UserError
from ftk.data.batches import as_batch
from ftk.testing import toy_context
from ftk_plugins.mitigations.distill.distill import Distill
from ftk_plugins.mitigations.distill.options import DistillOptions
from ftk_plugins.mitigations.stored import coarse
from tests.core.loops import build
from tests.mixers import mixer_of
from tests.plugins.mitigations.two_models import ROWS, by_hand, drawn, gradient, moved


@pytest.mark.parametrize(
    ("adaptation", "name", "chunks"),
    [("full", "causal_lm", None), ("lora", "causal_lm", 3), ("full", "masked_lm", 2), ("lora", "denoising", None)],
)
def test_it_is_the_divergence_from_a_second_model(adaptation: str, name: str, chunks: int | None) -> None:
    ctx, start = moved(adaptation, name, loss_chunks=chunks)
    part = Distill(DistillOptions(weight=0.7, temperature=1.5))
    part.begin(ctx)
    batch, loss = drawn(ctx)
    found = part.penalty(batch, loss, ctx)
    assert found is not None
    expected = 0.7 * by_hand(ctx, start, batch, 1.5)
    torch.testing.assert_close(found, expected)
    assert expected > 0.1
    torch.testing.assert_close(gradient(found, ctx.model), gradient(expected, ctx.model), rtol=1e-3, atol=1e-5)
    assert ctx.model.training
    assert part.report() == {"teacher": "live", "heads": ["new"], "cached_bytes": 0, "rows": {}}


def test_its_gradient_is_that_of_the_papers_cross_entropy() -> None:
    """Li and Hoiem's equation 2: −Σ y' log ŷ', with both softened by T; it lacks the factor T²."""
    ctx, start = moved("full")
    part = Distill(DistillOptions(temperature=2.0))
    part.begin(ctx)
    batch, loss = drawn(ctx)
    targets = batch.inputs["labels"][:, 1:] != -100
    with torch.no_grad():
        softened = start(batch.inputs["input_ids"]).logits[:, :-1][targets].softmax(-1) ** 0.5
    said = ctx.model(batch.inputs["input_ids"]).logits[:, :-1][targets].softmax(-1) ** 0.5
    right, told = (each / each.sum(-1, keepdim=True) for each in (softened, said))
    paper = -(right * told.log()).sum()
    found = part.penalty(batch, loss, ctx)
    assert found is not None
    torch.testing.assert_close(gradient(found, ctx.model), 4 * gradient(paper, ctx.model), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", ["forward_kl", "reverse_kl", "jensen_shannon"])
def test_a_cached_teacher_that_keeps_all_tokens_is_the_live_one(kind: Any) -> None:
    found = []
    for options in ({"teacher": "live"}, {"teacher": "cached", "top_k": 260}):
        ctx, _ = moved("lora")
        part = Distill(DistillOptions(divergence=kind, **options))
        part.begin(ctx)
        batch, loss = drawn(ctx, 9)  # rows come twice
        found.append(part.penalty(batch, loss, ctx))
    torch.testing.assert_close(*found)
    assert found[0] > 0


def test_of_fewer_tokens_the_rest_is_one_class_and_the_divergence_a_lower_bound() -> None:
    ctx, start = moved("full")
    whole, least, made = [], torch.inf, ctx.objective
    for k in (200, 20, 2):
        part = Distill(DistillOptions(teacher="cached", top_k=k, temperature=1.0))
        part.begin(ctx)
        batch, loss = drawn(ctx)
        whole.append(part.penalty(batch, loss, ctx).item())
    exact = by_hand(ctx, start, batch, 1.0).item()
    for bound in whole:
        assert bound < exact
        assert bound < least
        least = bound
    assert whole[0] > 0.7 * exact
    # Of two tokens and the rest, by counting: what float16 keeps is good to three digits.
    targets = batch.inputs["labels"][:, 1:] != -100
    with torch.no_grad():
        p = start(batch.inputs["input_ids"]).logits[:, :-1][targets].softmax(-1)
        q = ctx.model(batch.inputs["input_ids"]).logits[:, :-1][targets].softmax(-1)
    ids = p.topk(2).indices
    three = [torch.cat([each.gather(1, ids), 1 - each.gather(1, ids).sum(1, keepdim=True)], 1) for each in (p, q)]
    torch.testing.assert_close(
        torch.tensor(whole[2]), (three[0] * (three[0] / three[1]).log()).sum(), rtol=2e-3, atol=1e-3
    )
    targets = sum(made.collate([item]).count for item in ctx.task.train.items)
    assert part.report()["cached_bytes"] == targets * (3 * 2 + 2 * 4) + 8 * len(ROWS)


def test_the_coarse_distribution_sums_to_one_where_all_mass_is_kept() -> None:
    told = log_softmax(torch.tensor([[50.0, 0.0, -50.0, 1.0]]), -1).requires_grad_()
    found = coarse(told, torch.tensor([[0, 3]]))
    torch.testing.assert_close(found.exp().sum(), torch.tensor(1.0))
    assert torch.isfinite(torch.autograd.grad(found.sum(), told)[0]).all()


def test_rows_of_other_sources_in_the_batch_are_not_asked_about() -> None:
    ctx, _ = moved("full")
    part = Distill(DistillOptions())
    part.begin(ctx)
    batch, _ = drawn(ctx)
    alone = replace(batch, inputs={name: rows[:1] for name, rows in batch.inputs.items()}, origins=batch.origins[:1])
    mixed = replace(batch, origins=[batch.origins[0], *[("replay/old", 0)] * 3])
    told = [part.penalty(each, ctx.objective.loss(ctx.model, each, ctx), ctx) for each in (alone, mixed)]
    torch.testing.assert_close(*told)
    others = replace(batch, origins=[("replay/old", 0)] * 4)
    assert part.penalty(others, ctx.objective.loss(ctx.model, others, ctx), ctx) is None


@pytest.mark.parametrize("teacher", ["live", "cached"])
@pytest.mark.parametrize("label_weight", [0.0, 0.4])
def test_earlier_rows_have_the_divergence_as_their_loss(teacher: Any, label_weight: float) -> None:
    ctx, start = moved("full")
    options = {"top_k": 260} if teacher == "cached" else {}
    part = Distill(DistillOptions(rows="retained", teacher=teacher, label_weight=label_weight, weight=0.5, **options))
    for task in ctx.earlier:
        part.remember(task, ctx)
    part.begin(ctx)
    (source,) = part.sources(ctx)
    assert source.share == 0.1
    rows = mixer_of(ctx.task.train.items, ctx.objective, [source], 0).draw(0, 40)
    mine = [(where, item) for where, item in rows if where.name == source.name][:3]
    batch = as_batch(source.objective, [item for _, item in mine])
    ctx.model.train()
    loss = source.objective.loss(ctx.model, batch, ctx)
    expected = 0.5 * by_hand(ctx, start, batch, 2.0)
    expected = expected + label_weight * ctx.objective.loss(ctx.model, batch, ctx).total
    torch.testing.assert_close(loss.total, expected)
    assert loss.count == batch.count
    assert part.penalty(batch, loss, ctx) is None


def test_what_has_learned_nothing_is_not_asked() -> None:
    ctx, _ = moved("full")
    events: list[Any] = []
    fresh = toy_context(ctx.model, ctx.objective, ctx.adaptation, ctx.task, events=events)
    part = Distill(DistillOptions())
    part.begin(fresh)
    batch, loss = drawn(ctx)
    assert part.penalty(batch, loss, fresh) is None
    assert "nothing that is known" in events[0].data["text"]
    ctx.model.name_or_path = "loaded/from-here"
    part.begin(fresh)
    assert part.penalty(batch, loss, fresh) is not None


def test_a_cached_teacher_survives_a_restart_and_ends_with_the_stage() -> None:
    ctx, _ = moved("full")
    part = Distill(DistillOptions(rows="both", teacher="cached"))
    part.remember(ctx.earlier[0], ctx)
    part.begin(ctx)
    again = Distill(DistillOptions(rows="both", teacher="cached"))
    again.load_state_dict(part.state_dict())
    with torch.no_grad():
        for parameter in ctx.model.parameters():
            parameter.add_(1.0)
    again.begin(replace(ctx, adaptation=build("adaptation", "full", start_copy="none")))
    for name, stored in part._stored.items():
        assert torch.equal(stored.values, again._stored[name].values)
    again.finish(ctx)
    assert not again._stored
    assert again.state_dict() == {"rows": {"old": [0, 1, 2, 3]}, "stored": []}
    with pytest.raises(ValueError, match="fisher"):
        again.load_state_dict({"fisher": 1})
    with pytest.raises(ValueError, match="not all predictions"):
        again.load_state_dict({"stored": ["old"]})


def test_rows_that_are_varied_anew_cannot_be_asked_about_beforehand() -> None:
    ctx, _ = moved("full", "masked_lm")
    with pytest.raises(UserError, match="varied anew"):
        Distill(DistillOptions(teacher="cached")).begin(ctx)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"share": 0.2}, 'rows = "both"'),
        ({"rows": "new", "label_weight": 1.0}, "mixes none in"),
        ({"teacher": "live", "top_k": 8}, "keeps nothing"),
        ({"rows": "both", "buffer_size": 0}, "1 or more"),
        ({"weight": 0}, "weight"),
    ],
)
def test_options_that_could_not_act_are_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        DistillOptions(**wrong)


def test_what_the_checks_are_told() -> None:
    assert DistillOptions().more_needs() == ("target-logits",)
    both = DistillOptions(rows="both", teacher="live").more_needs()
    assert both == ("target-logits", "earlier-data", "earlier-target-logits", "reference")
    assert DistillOptions(rows="retained", tasks=("old",)).more_needs() == ("earlier-data",)
    assert (DistillOptions().data_share(), DistillOptions(rows="both", share=0.3).data_share()) == (0.0, 0.3)
    falling = DistillOptions(rows="both", share={"start": 0.4, "end": 0.1})
    assert 0.1 < falling.data_share() < 0.4
    assert DistillOptions(tasks=("old",)).earlier_tasks() == ("old",)


@pytest.mark.parametrize("chunks", [1, 3])
def test_in_bf16_the_teacher_has_the_starting_weights_and_no_casts_of_others(chunks: int) -> None:
    """Where earlier rows are trained on, the teacher reads within the autocast that has just cast what is trained."""
    ctx, start = moved("full", precision="bf16", loss_chunks=chunks)
    part = Distill(DistillOptions(rows="retained", temperature=1.0))
    part.remember(ctx.earlier[0], ctx)
    part.begin(ctx)
    (source,) = part.sources(ctx)
    batch = replace(ctx.objective.collate(list(source.items)), origins=[("distill/old", n) for n in range(4)])
    ctx.model.train()
    with ctx.autocast():
        found = source.objective.loss(ctx.model, batch, ctx).total
        expected = by_hand(ctx, start, batch, 1.0)
    assert expected > 1
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.0)
