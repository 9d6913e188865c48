"""`multitask`: weights, fixed and learned, against their formulas; what it refuses; the step's loss by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ftk
from ftk.data.batches import Batches
from ftk.data.mixing import Mixer
from ftk.processes.balance import Balance
from ftk.recipe.reading import load_recipe
from ftk.running.composition import Composition
from ftk.running.loop import Loop, Progress
from ftk.testing import toy_task
from ftk_plugins.datasets.mixture.mixture import Mixture
from tests.core.loops import build, make_loop, rows
from tests.joint import PARTS, joint, mixed
from tests.system.small import written

TABLES = {"words": {"use": "masked_lm"}, "topic": {"use": "classification"}}


def make(**options: Any) -> Any:
    return build("objective", "multitask", tasks=options.pop("tasks", TABLES), **options)


def test_fixed_weights_are_those_of_the_recipe() -> None:
    tasks = {"words": {**TABLES["words"], "weight": 0.25}, "topic": TABLES["topic"]}
    part = make(tasks=tasks)
    part.learn({"words": 3.0}, {"words": 1.0})
    assert part.weights() == {"words": 0.25, "topic": 1.0}
    assert part.state_dict() == {}


def test_log_variances_go_along_the_gradient_that_autograd_finds() -> None:
    """Of ``Σ n/N · (exp(-s) · L + s / 2)``, by torch's Adam on the formula itself."""
    part = make(weighting="uncertainty", weight_learning_rate=0.05)
    s = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([s], lr=0.05)
    random = torch.Generator().manual_seed(0)
    for step in range(12):
        losses, share = torch.rand(2, generator=random).double() * 4, float(torch.rand(1, generator=random))
        present = [True, step % 3 > 0]
        shares = torch.tensor([share if present[1] else 1.0, 1 - share], dtype=torch.float64)
        adam.zero_grad()
        terms = shares * (torch.exp(-s) * losses + s / 2)
        (terms[0] + terms[1] * present[1]).backward()
        adam.step()
        names = [name for name, there in zip(TABLES, present, strict=True) if there]
        part.learn(dict(zip(names, losses.tolist(), strict=False)), dict(zip(names, shares.tolist(), strict=False)))
        assert list(part.weights().values()) == pytest.approx(torch.exp(-s).tolist(), rel=1e-9)
    assert list(part.report()["log_variances"].values()) == pytest.approx(s.tolist())
    again = make(weighting="uncertainty", weight_learning_rate=0.05)
    again.load_state_dict(part.state_dict())
    for one in (part, again):
        one.learn({"words": 1.0, "topic": 2.0}, {"words": 0.5, "topic": 0.5})
    assert part.weights() == again.weights(), "with Adam's moments"


def test_steady_losses_lead_to_the_weight_that_is_best_for_them() -> None:
    """The minimum of ``exp(-s) · L + s / 2`` is at ``exp(-s) = 1 / (2 L)``."""
    part = make(weighting="uncertainty", weight_learning_rate=0.1)
    for _ in range(400):
        part.learn({"words": 5.0, "topic": 0.1}, {"words": 0.9, "topic": 0.1})
    assert part.weights() == pytest.approx({"words": 0.1, "topic": 5.0}, rel=0.05)


WEIGHTS = {"short": 3.0, "long": 0.5}
REFUSED = {
    "one task": ({"tasks": {"words": {"use": "masked_lm"}}}, "at least 2"),
    "a weight that is learned": (
        {"tasks": {"words": {"use": "masked_lm", "weight": 2.0}, "topic": {"use": "classification"}},
         "weighting": "uncertainty"}, "`words` has a `weight`"),
    "a rate that nothing has": ({"tasks": TABLES, "weight_learning_rate": 0.1}, "changes nothing"),
    "no weight": ({"tasks": {**TABLES, "words": {"use": "masked_lm", "weight": 0.0}}}, "greater than 0"),
}  # fmt: skip


@pytest.mark.parametrize("options", REFUSED)
def test_options_that_cannot_act_are_refused(options: str) -> None:
    given, reason = REFUSED[options]
    with pytest.raises(ValueError, match=reason):
        make(**given)


RECIPES = {
    "data of one kind": (mixed(6), '{ use = "world_facts" }', r"data\.train: `multitask` learns several tasks"),
    "a part of no task": ("tongue = { use = \"world_facts\"", "tonge = { use = \"world_facts\"",
                          r"parts\.tonge: `multitask` has no task `tonge`\n +did you mean `tongue`"),
    "a task without rows": ("words = { use = \"masked_lm\" }, ", "words = { use = \"masked_lm\" }, more = { use = "
                            "\"masked_lm\" }, ", "has no rows for `more`"),
    "an objective's option": ('label = "relation"', 'labl = "relation"', r"objective\.tasks\.topic\.labl: unknown key"),
    "a misspelt weight": ('use = "masked_lm"', 'use = "masked_lm", weigth = 2.0',
                          r"tasks\.words\.weigth: unknown key\n +did you mean `weight`"),
    "tasks within tasks": ('use = "masked_lm"', 'use = "multitask", tasks = { a = { use = "causal_lm" }, '
                           'b = { use = "causal_lm" } }', "is itself made of several tasks"),
    "what does not merge": ('use = "full"', 'use = "bottleneck"', "`multitask` needs merge, which adaptation"),
    "an evaluator of none": ('use = "perplexity"', 'use = "exact_match"', "`exact_match` needs prompts"),
}  # fmt: skip


@pytest.mark.parametrize("kind", RECIPES)
def test_recipes_that_cannot_be_done_are_refused_with_the_place(kind: str, tmp_path: Path) -> None:
    old, new, reason = RECIPES[kind]
    text = joint()
    assert old in text
    load_recipe(written(tmp_path, text))
    with pytest.raises(ftk.RecipeError, match=reason):
        load_recipe(written(tmp_path, text.replace(old, new, 1), "wrong.toml"))


def test_two_tasks_of_the_same_labels_say_whether_they_share_a_head(tmp_path: Path) -> None:
    text = joint().replace('label = "language"', 'label = "relation"').replace(
        'languages = ["en", "zh"], relations = "symbol"', 'languages = "zh", relations = ["symbol", "number"]'
    )  # fmt: skip
    with pytest.raises(ftk.UserError, match=r"tasks\.tongue: its labels \(number, symbol\) are those of `topic`"):
        ftk.run(written(tmp_path, text), output=tmp_path / "run")
    named = text.replace('classification", label = "relation"', 'classification", head = "HEAD", label = "relation"')
    apart = named.replace("HEAD", "one", 1).replace("HEAD", "two")
    for name, these, heads in (("apart", apart, {"topic", "tongue"}), ("shared", named, {"topic"})):
        result = ftk.run(written(tmp_path, these, f"{name}.toml"), output=tmp_path / name,
                         overrides=["training.steps=1"])  # fmt: skip
        members = result.folder / "model" / "members"
        assert {path.name for path in members.iterdir()} == heads


def test_tasks_of_other_labels_cannot_name_one_head(tmp_path: Path) -> None:
    text = joint().replace('use = "classification"', 'use = "classification", head = "one"')
    with pytest.raises(ftk.UserError, match=r"names the head `one`, as `.*` does, and the two cannot share one"):
        ftk.run(written(tmp_path, text), output=tmp_path / "run")


def test_one_task_alone_may_have_test_rows(tmp_path: Path) -> None:
    text = joint().replace(f"test = {mixed(4)}", f"test = {mixed(4, parts={'words': PARTS['words']})}")
    result = ftk.run(written(tmp_path, text), output=tmp_path / "run", overrides=["training.steps=1"])
    assert [score is not None for score in result.report["start"]["perplexity"]] == [True, False, False]


def test_retained_rows_are_read_with_one_objective(tmp_path: Path) -> None:
    text = joint().replace('overlap = "allow"', 'overlap = "allow"\nretain = { use = "world_facts" }')
    with pytest.raises(ftk.RecipeError, match=r"data.retain is read with one objective, and `multitask`"):
        load_recipe(written(tmp_path, text))


def joined(micro: int | None, weights: dict[str, float], **training: Any) -> Loop:
    """A loop over two tasks of one head whose rows have other numbers of targets."""
    loop = make_loop(steps=1, batch_size=7, micro_batch_size=micro, max_grad_norm=0.0, warmup=0.0, **training)
    objectives = {name: build("objective", "causal_lm", packing=False, max_length=size)
                  for name, size in (("short", 9), ("long", 64))}  # fmt: skip
    tasks = [toy_task(rows(9), objectives["short"], "joint/short"), toy_task(rows(5), objectives["long"], "joint/long")]
    loop.batches = Batches(Mixer.of_tasks(tasks, [], 0), loop.options)
    options = {name: {"use": "causal_lm", "weight": weight} for name, weight in weights.items()}
    loop.balance = Balance(make(tasks=options), objectives)
    return loop


@pytest.mark.parametrize("micro", [None, 2])
def test_the_gradient_of_a_step_is_that_of_the_weighed_means(micro: int | None) -> None:
    loop = joined(micro, WEIGHTS)
    ctx, expected = loop.ctx, torch.zeros(())
    drawn = loop.batches.rows(0)
    for name, objective in {source.name: source.objective for source, _ in drawn}.items():
        items = [item for source, item in drawn if source.name == name]
        loss = objective.loss(ctx.model, objective.collate(items), ctx)
        expected = expected + WEIGHTS[name.removeprefix("train/")] * len(items) / len(drawn) * loss.total / loss.count
    gradients = torch.autograd.grad(expected, list(ctx.model.parameters()), allow_unused=True)
    kept: list[torch.Tensor] = []
    loop.optimizer.step = lambda *_: kept.extend(p.grad.clone() for p in ctx.model.parameters())  # type: ignore
    told: list[Any] = []
    object.__setattr__(ctx, "events", lambda kind, **data: told.append((kind, data)))
    loop.train(Progress())
    for found, wanted in zip(kept, gradients, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
    (step,) = (data for kind, data in told if kind == "step")
    assert step["loss"] == pytest.approx(float(expected), rel=1e-5)
    alone = {name: its["loss"] * its["weight"] for name, its in step["tasks"].items()}
    shares = {name: sum(s.name == f"train/{name}" for s, _ in drawn) / len(drawn) for name in WEIGHTS}
    assert sum(alone[name] * shares[name] for name in WEIGHTS) == pytest.approx(step["loss"], rel=1e-5)


def test_an_epoch_has_each_tasks_rows_as_often_as_the_mixture_says() -> None:
    objective = build("objective", "causal_lm", packing=False, max_length=64)
    from dataclasses import replace

    small, large = (replace(toy_task(rows(count), objective, f"joint/{name}"), passes=passes)
                    for name, count, passes in (("small", 4, 3.0), ("large", 20, 1.0)))  # fmt: skip
    mixer = Mixer.of_tasks([small, large], [], 0)
    assert mixer.rows_in(1) == 32
    for epoch in range(3):
        drawn = mixer.draw(32 * epoch, 32 * (epoch + 1))
        names = [source.name for source, _ in drawn]
        assert {name: names.count(name) for name in set(names)} == {"train/small": 12, "train/large": 20}
    assert [round(source.share, 4) for source in mixer.sources] == [0.375, 0.625]


def test_the_weighing_that_the_docs_show_is_a_joint_objective() -> None:
    page = (Path(__file__).parents[3] / "docs" / "hooks.md").read_text(encoding="utf-8")
    (text,) = [text for text in page.split("```python\n") if "class Even(JointObjective)" in text]
    names: dict[str, Any] = {}
    exec(text.partition("```")[0], names)
    part = names["Even"](make().options)
    for _ in range(2000):
        part.learn({"words": 4.0, "topic": 0.5}, {"words": 0.5, "topic": 0.5})
    assert part.weights() == pytest.approx({"words": 0.25, "topic": 2.0})
    again = names["Even"](make().options)
    again.load_state_dict(part.state_dict())
    assert again.weights() == part.weights()


def test_a_mix_without_rows_of_a_task_is_refused_with_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Mixture, "order", lambda self, counts: np.array([[0, 0], [1, 0]]))
    with pytest.raises(ftk.UserError, match=r"parts\.tongue: the mix has none of these rows"):
        ftk.run(written(tmp_path, joint()), output=tmp_path / "run")


def test_all_heads_rest_after_training_and_none_is_trained_in_float16(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[bool] = []
    monkeypatch.setattr(
        Composition, "finish", lambda self, ctx: modes.extend(model.training for model in ctx.all_models())
    )
    saved = ftk.run(written(tmp_path, joint()), output=tmp_path / "run", overrides=["training.steps=1"]).folder
    assert modes == [False] * 3
    model = f"model={{ use = 'pretrained', path = '{saved / 'model'}', dtype = 'float16' }}"
    lora = "adaptation={ use = 'lora', rank = 2 }"
    with pytest.raises(ftk.UserError, match="held in float16"):
        ftk.run(written(tmp_path, joint()), output=tmp_path / "narrow", overrides=[model, lora, "training.steps=1"])
