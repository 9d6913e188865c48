"""``head``, ``partial``, ``layerwise_lr`` and ``progressive``: what is trained, when, and at which rate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from ftk import Options, UserError
from ftk.parts import Adaptation
from ftk.plugin.discovery import load_registry
from ftk.plugin.variant import import_reference
from ftk.running.loop import Loop, Progress
from ftk.testing import toy_context, toy_model
from tests.core.loops import make_loop
from tests.plugins.adaptations.trunks import made


def built(name: str, **options: Any) -> Adaptation:
    entry = load_registry(third_party=False).find("adaptation", name)
    part: Adaptation = import_reference(entry.variant.build)(entry.options_class()(**options))
    return part


def attached(name: str, model: Any = None, **options: Any) -> tuple[Any, Any]:
    part = built(name, **options)
    return part, part.attach(toy_model() if model is None else model)


def trained(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


HEADS: dict[str, tuple[Callable[[], Any], set[str]]] = {
    "classifier": (lambda: made("llama", labels=3), {"score.weight"}),
    "untied output layer": (lambda: made("llama"), {"lm_head.weight"}),
    "bert": (lambda: made("bert"), {"classifier.weight", "classifier.bias"}),
    "masked lm": (
        lambda: made("bert_masked"),
        {
            "cls.predictions.bias", "cls.predictions.transform.dense.weight", "cls.predictions.transform.dense.bias",
            "cls.predictions.transform.LayerNorm.weight", "cls.predictions.transform.LayerNorm.bias",
        },
    ),
    "vit": (lambda: made("vit"), {"classifier.weight", "classifier.bias"}),
}  # fmt: skip


@pytest.mark.parametrize("case", HEADS)
def test_the_head_alone_is_trained(case: str) -> None:
    make, expected = HEADS[case]
    part, model = attached("head", make())
    assert trained(model) == expected
    assert set(part.drift()) == expected


def test_a_model_without_a_head_of_its_own_is_told_and_can_be_given_one() -> None:
    with pytest.raises(UserError, match="tied to the embedding") as told:
        attached("head", toy_model())
    assert "`also`" in str(told.value.hint)
    with pytest.raises(UserError, match=r"adaptation\.also: 'model\.nrm\*' matches no weight"):
        attached("head", toy_model(), also=("model.nrm*",))
    _, model = attached("head", toy_model(), also=("model.norm.*",))
    assert trained(model) == {"model.norm.weight"}
    with pytest.raises(UserError, match="no weights of its own behind its trunk"):
        attached("head", made("clip"))


def test_partial_trains_the_last_blocks_of_every_stack() -> None:
    _, model = attached("partial", made("llama"), blocks=1)
    assert all(("layers.1." in name or "norm" in name or "lm_head" in name) for name in trained(model))
    assert {name for name in trained(model) if "layers" not in name} == {"model.norm.weight", "lm_head.weight"}
    _, clip = attached("partial", made("clip"), blocks=1)
    stacks = {name.split(".layers.")[0] + name.split(".layers.")[1][:2] for name in trained(clip) if ".layers." in name}
    assert stacks == {"text_model.encoder1.", "vision_model.encoder2."}
    _, none = attached("partial", made("llama"), blocks=0, also=("*.layers.0.mlp.*",))
    assert {name for name in trained(none) if "mlp" in name} == {
        f"model.layers.0.mlp.{part}_proj.weight" for part in ("gate", "up", "down")
    }
    with pytest.raises(UserError, match=r"adaptation\.blocks: 3 are more than the 2"):
        attached("partial", made("llama"))


def test_the_rate_of_every_weight_is_that_of_the_formula() -> None:
    part, model = attached("layerwise_lr", made("llama"), decay=0.5)
    groups = part.param_groups(model, 1.0)
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    heights = {"embed_tokens": 3, "layers.0.": 2, "layers.1.": 1, "norm.weight": 0, "lm_head": 0}
    for name, parameter in model.named_parameters():
        (height,) = [height for part, height in heights.items() if part in name][:1]
        assert rates[id(parameter)] == 0.5**height, name
    assert groups[0]["lr"] == 1.0, "the first is the one whose rate a run tells"
    still = {id(parameter) for group in groups if group.get("weight_decay") == 0 for parameter in group["params"]}
    names = {name for name, parameter in model.named_parameters() if id(parameter) in still}
    assert names == {name for name in names if "norm" in name or "embed" in name}
    assert len(names) == 6


def test_frozen_patterns_and_the_copy_are_those_of_full() -> None:
    part, model = attached("layerwise_lr", freeze=("*embed*",), start_copy="none")
    assert "model.embed_tokens.weight" not in trained(model)
    with pytest.raises(UserError, match="adaptation `layerwise_lr` keeps no copy"):
        part.drift()
    assert part.__class__.__name__ == "LayerwiseTuning"


def thaws(steps: int, model: Any = None, **options: Any) -> dict[int, int]:
    """At which steps more is trained, and how many blocks (3: all and the embeddings) then are."""
    part, model = attached("progressive", model or made("llama"), **options)
    ctx = toy_context(model, None, part, steps=steps)  # type: ignore[arg-type]
    given = [parameter for group in part.param_groups(model, 1.0) for parameter in group["params"]]
    heights = {parameter: part.heights[parameter] for parameter in given}
    open_now = {-1: max(heights[p] for p in heights if p.requires_grad)}
    for step in range(steps):
        if part.before_step(replace(ctx, step=step)):
            open_now[step] = max(heights[p] for p in heights if p.requires_grad)
            assert all(p.requires_grad == (heights[p] <= open_now[step]) for p in heights)
    return open_now


def test_blocks_are_thawed_one_after_another_by_the_schedule() -> None:
    assert thaws(60) == {-1: 0, 10: 1, 20: 2, 30: 3}, "by half of the stage"
    assert thaws(60, thawed_by=0.1) == {-1: 0, 2: 1, 4: 2, 6: 3}
    assert thaws(60, thaw_every=7) == {-1: 0, 7: 1, 14: 2, 21: 3}
    assert thaws(60, first_blocks=1) == {-1: 1, 15: 2, 30: 3}
    assert thaws(60, first_blocks=5) == {-1: 3}
    assert thaws(2, thawed_by=1.0) == {-1: 0, 1: 3}, "all is trained in the last step at least"
    assert thaws(60, freeze=("*norm*", "lm_head*")) == {-1: 1, 15: 2, 30: 3}
    with pytest.raises(UserError, match=r"thaw_every: 3 thaws, 20 steps apart, do not fit into 60"):
        thaws(60, thaw_every=20)
    with pytest.raises(ValueError, match="write one of them"):
        built("progressive", thaw_every=3, thawed_by=0.2)
    assert thaws(60, thaw_every=19) == {-1: 0, 19: 1, 38: 2, 57: 3}


def test_progressive_learns_at_one_rate_unless_it_decays() -> None:
    part, model = attached("progressive", made("llama"))
    assert {group["lr"] for group in part.param_groups(model, 0.1)} == {0.1}
    part, model = attached("progressive", made("llama"), decay=0.5)
    assert sorted({group["lr"] for group in part.param_groups(model, 1.0)}) == [0.125, 0.25, 0.5, 1.0]


def loop_of(name: str, steps: int, mitigation: Any = None, **options: Any) -> Loop:
    """A loop of a few steps under this adaptation."""
    loop = make_loop(steps=steps, warmup=0, schedule="constant", max_grad_norm=0, weight_decay=0.1)
    part = built(name, **options)
    model = part.attach(loop.ctx.model)
    optimizer = torch.optim.AdamW(part.param_groups(model, 1e-3), weight_decay=0.1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    loop = replace(loop, ctx=replace(loop.ctx, adaptation=part), optimizer=optimizer, scheduler=scheduler)
    if mitigation is not None:
        loop.mitigations = type(loop.mitigations)({"guard": mitigation})
    return loop


SMALL: dict[str, dict[str, Any]] = {
    "head": {"also": ("model.norm.*", "*layers.1.mlp*")},
    "partial": {"blocks": 1},
    "layerwise_lr": {"decay": 0.5},
    "progressive": {"thawed_by": 0.5},
}


def options_of(kind: str, name: str, **options: Any) -> Options:
    return load_registry(third_party=False).find(kind, name).options_class()(**options)


@pytest.mark.parametrize("name", SMALL)
def test_ewc_pulls_what_is_trained_and_interpolation_scales_it(name: str) -> None:
    """The strong pull of EWC keeps the weights nearer; what is frozen stays to the bit; half the drift is half way."""
    from ftk_plugins.mitigations.ewc.ewc import Ewc
    from ftk_plugins.mitigations.interpolation.interpolation import Interpolation

    def moved(strength: float) -> tuple[float, Loop]:
        ewc = Ewc(options_of("mitigation", "ewc", strength=strength, samples=4))  # type: ignore[arg-type]
        loop = loop_of(name, 6, ewc, **SMALL[name])
        assert loop.ctx.task is not None
        ewc.remember(loop.ctx.task, loop.ctx)
        ewc.begin(loop.ctx)
        loop.train(Progress())
        drifts = loop.ctx.adaptation.drift()
        return sum(float(drift.rows(0, drift.shape[0]).abs().sum()) for drift in drifts.values()), loop

    start = dict(toy_model().named_parameters())
    (free, loop), (held, _) = moved(1e-9), moved(100.0)
    assert held < 0.9 * free
    model = loop.ctx.model
    for key, parameter in model.named_parameters():
        assert parameter.requires_grad or torch.equal(parameter, start[key]), key
    end = {key: parameter.detach().clone() for key, parameter in model.named_parameters()}
    Interpolation(options_of("mitigation", "interpolation", alpha=0.5)).finish(loop.ctx)  # type: ignore[arg-type]
    for key, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), (start[key] + end[key]) / 2, atol=1e-6, rtol=1e-6, msg=key)
    with loop.ctx.adaptation.reference():
        assert all(torch.equal(p, start[key]) for key, p in model.named_parameters())
