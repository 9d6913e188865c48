"""Stages with different heads: each task keeps its own, over the body as it stands, whatever else a run does."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer

import ftk
from ftk.disk.bundles import read_bundle
from ftk.planning.machine import this_machine
from ftk.planning.plan import Planner
from ftk.recipe.reading import load_recipe
from ftk.running.runner import dry_run
from ftk.testing.toys import toy_context
from ftk_plugins.datasets.world_facts.options import WorldFactsOptions
from ftk_plugins.datasets.world_facts.world_facts import WorldFacts
from tests.core.conftest import install
from tests.headed import PLUGIN, Cloze, ClozeOptions, Kinds, KindsOptions, facts, headed, stage
from tests.system.forge import Death, Forge
from tests.system.small import events_of, report_of, untimed, weights, written
from tests.system.test_distributed import start_ranks

ROOT = Path(__file__).parents[2]
WORDS, ONE = '{ use = "cloze" }', '{ use = "kinds" }'
TWO = '{ use = "kinds", labels = ["even", "odd"] }'
NEXT = 'use = "causal_lm"\ntext = "output"\npacking = false'
GUARDED = """
[[mitigation]]
use = "ewc"
samples = 6
[[mitigation]]
use = "replay"
share = 0.3
"""
STAGES = (stage("words", WORDS, "capital"), stage("kinds", ONE, "currency"), stage("again", TWO, "capital"))


@pytest.fixture
def plugin(add_plugin: Callable[[str, str], None]) -> None:
    add_plugin("ftk-headed", PLUGIN)


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process of its own in which the objectives are installed."""
    site = tmp_path_factory.mktemp("site")
    install(site, "ftk-headed", {"ftk_headed.py": PLUGIN}, {"made_up": "ftk_headed"}, "1.0")
    return {"PYTHONPATH": os.pathsep.join([str(site), str(ROOT)]), "ACCELERATE_USE_CPU": "true"}


def run(here: Path, text: str, *overrides: str, output: str = "run") -> ftk.RunResult:
    return ftk.run(written(here, text), output=here / output, overrides=overrides)


def model_of(folder: Path, labels: tuple[str, ...]) -> Any:
    return (AutoModelForSequenceClassification if labels else AutoModelForMaskedLM).from_pretrained(folder).eval()


def perplexity(result: ftk.RunResult, after: int, task: str) -> float:
    tasks, rows = result.report["tasks"], result.report["matrix"]["perplexity"]
    row = result.report["start"]["perplexity"] if not after else rows[after - len(result.report["stages"]) - 1]
    value: float = row[tasks.index(task)]
    return value


def with_body_of(model: Any, other: Any) -> Any:
    """``model`` with every weight of the other's embeddings and encoder: put together by hand, by name."""
    given = {name: tensor for name, tensor in other.state_dict().items() if name.startswith("bert.e")}
    assert not model.load_state_dict(given, strict=False).unexpected_keys
    model.tie_weights()
    return model


ADAPTATIONS = ['{ use = "full" }', '{ use = "lora", rank = 4 }']


@pytest.mark.parametrize("adaptation", ADAPTATIONS, ids=["full", "lora"])
def test_every_task_is_measured_with_the_head_that_learned_it_on_the_body_as_it_stands(
    adaptation: str, here: Path, plugin: None
) -> None:
    result = run(here, headed(*STAGES, adaptation=adaptation, more=GUARDED))
    stages = [result.folder / "stages" / name / "model" for name in ("1-words", "2-kinds", "3-again")]
    assert [type(model_of(each, labels)).__name__ for each, labels in zip(stages, [(), ("a",), ("a",)], strict=True)]
    last = model_of(result.folder / "model", ("even", "odd"))
    assert list(last.config.id2label.values()) == ["even", "odd"]
    assert list(model_of(stages[1], ("short", "long")).config.id2label.values()) == ["short", "long"]
    tokenizer = AutoTokenizer.from_pretrained(stages[0])
    objectives = {"words": Cloze(ClozeOptions()), "kinds": Kinds(KindsOptions())}
    rows = {"words": rows_of("capital", 4), "kinds": rows_of("currency", 4)}
    for after, task, labels, number in [(2, "words", (), 0), (3, "words", (), 0), (3, "kinds", ("short", "long"), 1)]:
        model = with_body_of(model_of(stages[number], labels), model_of(stages[after - 1], ("a",)))
        objective: Any = objectives[task]
        batch = objective.collate([objective.encode(row, tokenizer) for row in rows[task]])
        with torch.no_grad():
            loss = objective.loss(model, batch, toy_context(model, objective)).total / batch.count
        assert perplexity(result, after, task) == pytest.approx(float(loss.exp()), rel=1e-4), (after, task)
    for untrained in ("kinds", "again"):
        assert perplexity(result, 0, untrained) == pytest.approx(2, rel=0.05), (
            "a head that is newly drawn knows nothing"
        )


def rows_of(relation: Any, limit: int) -> list[dict[str, str]]:
    options = WorldFactsOptions(languages=("en",), templates_per_fact=1, relations=(relation,), limit=limit)
    found: list[dict[str, str]] = WorldFacts(options).rows("test").to_list()
    return found


def test_the_fisher_information_of_an_earlier_task_goes_through_its_head(here: Path, plugin: None) -> None:
    """Against one backward pass for each row through the model that the earlier stage left."""
    ewc = '[[mitigation]]\nuse = "ewc"\nsamples = 8\n'
    result = run(here, headed(*STAGES[:2], more=ewc), "training.dropout=0.0")
    state = read_bundle(result.folder / "stages" / "2-kinds" / "state")[0]["mitigation.ewc"]
    fisher = {name.removeprefix("fisher/"): value for name, value in state.items() if name.startswith("fisher/")}
    folder = result.folder / "stages" / "1-words" / "model"
    model, tokenizer, objective = model_of(folder, ()), AutoTokenizer.from_pretrained(folder), Cloze(ClozeOptions())
    shared = {name.removeprefix("bert."): p for name, p in model.named_parameters() if name.startswith("bert.")}
    assert fisher.keys() == shared.keys(), "of the body alone, without the pooler that masked words do not go through"
    squares = {name: torch.zeros_like(parameter) for name, parameter in shared.items()}
    for row in rows_of("capital", 8):
        batch = objective.collate([objective.encode(row, tokenizer)])
        gradients = torch.autograd.grad(
            objective.loss(model, batch, toy_context(model, objective)).total, [*shared.values()]
        )
        for name, gradient in zip(shared, gradients, strict=True):
            squares[name] += gradient**2
    trace = sum(float(square.sum()) for square in squares.values())
    count = sum(square.numel() for square in squares.values())
    assert state["tasks"]["words"]["trace"] == pytest.approx(trace / 8, rel=1e-3)
    for name, square in squares.items():
        torch.testing.assert_close(fisher[name], square * count / trace, rtol=2e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize(
    ("adaptation", "most"),
    [('{ use = "full" }', 0.5), ('{ use = "lora", rank = 8 }', 0.995)],  # LoRA leaves the tied embedding as it is
    ids=["full", "lora"],
)
def test_replay_goes_through_the_earlier_head_which_rests(
    adaptation: str, most: float, here: Path, plugin: None
) -> None:
    more = '[[mitigation]]\nuse = "replay"\nshare = 0.5\n'
    text = headed(*STAGES[:2], stage("once-more", WORDS, "currency"), adaptation=adaptation, more=more)
    settings = [
        "training.steps=12", "training.learning_rate=1e-2", "stage.kinds.training.steps=20",
        "stage.once-more.training.steps=1", "stage.once-more.training.learning_rate=1e-9",
    ]  # fmt: skip
    replayed = run(here, text, *settings, output="replayed")
    plain = run(here, text, *settings, "mitigation=[]", output="plain")
    assert perplexity(replayed, 2, "words") < most * perplexity(plain, 2, "words")
    one, three = (
        load_file(replayed.folder / "stages" / name / "model" / "model.safetensors")
        for name in ("1-words", "3-once-more")
    )
    own = [name for name in one if name.startswith("cls.")]
    assert own
    for name in own:
        torch.testing.assert_close(
            three[name], one[name], rtol=0, atol=1e-6, msg="the stage that has it again goes on with it"
        )


def test_two_processes_replay_through_an_earlier_head_as_one_does(
    outside: dict[str, str], forge: Forge, tmp_path: Path
) -> None:
    """Of six rows a step: passes of either head, not the same number in both processes."""
    text = headed(*STAGES, more=GUARDED).replace(
        "batch_size = 4", "batch_size = 6\nmicro_batch_size = 2\ndropout = 0.0"
    )
    recipe = written(tmp_path, text)
    code, told = forge.run("run", recipe, "--output", tmp_path / "alone", environment=outside)
    assert code == 0, told
    ranks = start_ranks(forge, "run", recipe, "--output", tmp_path / "both", environment=outside)
    for rank in ranks:
        assert rank.wait() == 0, "\n".join(rank.told() for rank in ranks)
    for name in ("1-words", "2-kinds", "3-again"):
        there, here = (
            load_file(tmp_path / run / "stages" / name / "model" / "model.safetensors") for run in ("alone", "both")
        )
        assert there.keys() == here.keys()
        for weight, value in there.items():
            torch.testing.assert_close(here[weight], value, atol=1e-5, rtol=1e-4, msg=f"{name}: {weight}")
    alone, both = (report_of(tmp_path / run)["matrix"]["perplexity"] for run in ("alone", "both"))
    torch.testing.assert_close(torch.tensor(both), torch.tensor(alone), atol=1e-3, rtol=1e-4)


DEATHS = {
    "while the start is measured": Death("measured", {"after": 0, "task": "words"}),
    "in stage 1": Death("step", {"stage": 1, "step": 3}),
    "while stage 1 is measured": Death("measured", {"after": 1, "task": "kinds"}),
    "between the stages": Death("stage_finished", {"stage": 1}),
    "in the Fisher pass of stage 2": Death("phase", {"text": "Fisher information of words"}),
    "in stage 2": Death("step", {"stage": 2, "step": 3}),
    "while stage 2 is saved": Death("phase", {"text": "saving the model of stage kinds"}),
    "at the start of stage 3": Death("stage_started", {"stage": 3}),
    "in stage 3": Death("step", {"stage": 3, "step": 3}),
    "in stage 4, which has the first head again": Death("step", {"stage": 4, "step": 3}),
    "when all is done but the report": Death("stage_finished", {"stage": 4}),
}


@pytest.mark.parametrize("adaptation", ADAPTATIONS, ids=["full", "lora"])
def test_killed_at_every_station_it_ends_in_the_same_bits(
    adaptation: str, outside: dict[str, str], forge: Forge, tmp_path: Path
) -> None:
    text = headed(*STAGES, stage("last", WORDS, "iso_code"), adaptation=adaptation, more=GUARDED)
    recipe = written(tmp_path, text)
    code, told = forge.run("run", recipe, "--output", tmp_path / "whole", environment=outside)
    assert code == 0, told
    for moment, death in DEATHS.items():
        code, told = forge.run("run", recipe, "--output", tmp_path / "run", death=death, environment=outside)
        assert code == -signal.SIGKILL, (moment, told)
    code, told = forge.run("run", recipe, "--output", tmp_path / "run", environment=outside)
    assert code == 0, told
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")
    assert untimed(report_of(tmp_path / "run")) == untimed(report_of(tmp_path / "whole"))


def test_what_the_starting_model_knows_has_its_own_head_too(here: Path, plugin: None) -> None:
    """Decoders: the retained texts are next tokens, the stage teaches classes; the output layer is tied to the body."""
    retain = f"retain = {facts('capital', 8)}\nretain_test = {facts('capital', 4)}\n"
    text = headed(STAGES[1], architecture="llama", more=GUARDED).replace("[data]\n", f"[data]\n{retain}")
    text = text.replace("[model]", f"[objective]\n{NEXT}\n[model]")
    result = run(here, text, "training.steps=8")
    before, after = (perplexity(result, number, "retain") for number in (0, 1))
    assert before == pytest.approx(300, rel=0.2)
    assert after < 0.98 * before
    ewc = result.report["stages"][0]["mitigations"]["ewc"]
    assert ewc["tasks"]["retain"]["samples"] == 6
    assert not any("output" in str(event) for event in events_of(result.folder, "warning"))
    assert result.report["stages"][0]["mitigations"]["replay"]["rows"] == {"retain": 8}
    assert type(AutoModelForSequenceClassification.from_pretrained(result.folder / "model")).__name__.startswith(
        "Llama"
    )


def test_a_divided_model_has_one_head(here: Path, plugin: None) -> None:
    with pytest.raises(
        ftk.UserError, match=r"training.sharding: the tasks of this run have several heads \(masked_lm, seq"
    ):
        run(here, headed(*STAGES[:2]), 'training.sharding="full"')
    assert not events_of(here / "run", "step")


def test_a_plan_counts_every_head(here: Path, plugin: None) -> None:
    recipe = load_recipe(written(here, headed(*STAGES, more=GUARDED)))
    planner = Planner(recipe, this_machine(1))
    alone = Planner(load_recipe(written(here, headed(STAGES[1]), "one.toml")), this_machine(1))
    for number in (1, 2, 3):
        plan = planner.stage(number)
        assert plan.unknown == ""
        step = next(station for station in plan.stations if station.name == "step")
        # Beside the classifier and its pooler: those of the other labels, and what masked words need.
        pooler, transform = 16 * 16 + 16, 16 * 16 + 3 * 16
        more = (16 * 2 + 2 + pooler) + (transform + 300) if number > 1 else 0
        one = next(station for station in alone.stage(1).stations if station.name == "step")
        if number > 1:
            assert step.parts["weights"] == one.parts["weights"] + 4 * more
    assert [stage["steps"] for stage in dry_run(recipe)] == [4, 4, 4]
