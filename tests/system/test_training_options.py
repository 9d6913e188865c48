"""Every option of [training] does what it says, in whole runs; test_loop.py holds those that one step shows."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import ftk
from ftk.events import RunEvent
from ftk.recipe.reading import load_recipe
from ftk.recipe.training import Training
from ftk.running.runner import dry_run
from tests.system.one_stage import run, stopped_at, weights
from tests.system.small import FACTS, ONE_STAGE, events_of, written
from tests.system.small import weights as weights_of

RECORDER = """
from ftk import Options, Variant, hookimpl
from ftk.parts import Mitigation

WEIGHTS, GRADIENTS = [], []

class Recorder(Mitigation):
    def __init__(self, options):
        pass
    def edit_gradients(self, gradients, ctx):
        named = dict(ctx.model.named_parameters())
        WEIGHTS.append({name: weight.detach().clone() for name, weight in named.items()})
        GRADIENTS.append({name: weight.grad.clone() for name, weight in named.items()})

@hookimpl
def ftk_mitigations():
    return [Variant(name="recorder", summary="Keeps gradients.", options="ftk:Options", build="ftk_record:Recorder")]
"""


IN_CORE = ("test_loop.py", "test_placing.py")


def test_every_option_has_a_test() -> None:
    here = Path(__file__)
    names = ("test_training_switches.py", "test_run_watched.py", "test_sharded.py", "placed_runs.py")
    others = (*(here.parent / name for name in names), *(here.parents[1] / "core" / n for n in IN_CORE))
    tests = "".join(path.read_text() for path in (here, *others))
    untested = [name for name in Training.model_fields if not re.search(rf"\b{name}(=|\"|\.)", tests)]
    assert not untested


def test_the_optimizer_is_adamw_by_its_formula(here: Path, add_plugin: Callable[[str, str], None]) -> None:
    """Loshchilov & Hutter 2019, algorithm 2, from the gradients of a run; no decay on embeddings and norms."""
    add_plugin("ftk-record", RECORDER)
    rate, beta1, beta2, epsilon, decay = 0.01, 0.7, 0.9, 1e-3, 0.5
    result = run(
        here, "mitigation=[{ use = 'recorder' }]", "training.steps=4", f"training.learning_rate={rate}",
        f"training.optimizer={{ beta1 = {beta1}, beta2 = {beta2}, epsilon = {epsilon} }}",
        f"training.weight_decay={decay}", "training.schedule=constant", "training.max_grad_norm=0", output="run",
    )  # fmt: skip
    recorded = sys.modules["ftk_record"]
    assert len(recorded.GRADIENTS) == 4
    end = weights(result)
    kinds = set()
    for name, weight in recorded.WEIGHTS[0].items():
        if name not in end:
            continue
        mean, square = torch.zeros_like(weight), torch.zeros_like(weight)
        for step, gradients in enumerate(recorded.GRADIENTS, start=1):
            gradient = gradients[name]
            mean = beta1 * mean + (1 - beta1) * gradient
            square = beta2 * square + (1 - beta2) * gradient**2
            scaled = (mean / (1 - beta1**step)) / ((square / (1 - beta2**step)).sqrt() + epsilon)
            weight = weight - rate * scaled - rate * (decay if name.endswith("proj.weight") else 0) * weight
        kinds.add(name.rpartition(".")[0].rpartition("_")[2])
        torch.testing.assert_close(end[name], weight, atol=1e-6, rtol=1e-5)
    assert {"proj", "tokens"} < kinds


@pytest.mark.parametrize(
    ("optimizer", "adaptation"), [("muon", "full"), ("muon", "lora"), ("adafactor", "lora"), ("sgd", "full")]
)
def test_every_optimizer_resumes_with_the_same_bits(optimizer: str, adaptation: str, here: Path) -> None:
    """That of AdamW is held by test_resume.py."""
    settings = (f"training.optimizer={optimizer}", f"adaptation.use={adaptation}", "training.steps=6")
    run(here, *settings, output="whole")
    stopped_at(here, 4, *settings, output="stopped")
    assert weights_of(here / "whole") == weights_of(run(here, *settings, output="stopped").folder)


def test_every_stage_warms_up_anew(here: Path) -> None:
    """And a warm-up that does not end before its stage is refused, by a dry run too."""
    stages = '[[stage]]\nname = "first"\n[[stage]]\nname = "second"\ntraining = { warmup_steps = 3 }\n'
    recipe = written(here, ONE_STAGE + stages)
    settings = ["training.steps=6", "training.warmup=0.34", "training.schedule=constant", "training.learning_rate=1"]
    rates = {
        stage: [event["learning_rate"] for event in events_of(ftk.run(recipe, overrides=settings).folder, "step")
                if event["stage"] == stage]
        for stage in (1, 2)
    }  # fmt: skip
    assert rates[1] == [0, 0.5, 1, 1, 1, 1]
    assert rates[2] == pytest.approx([0, 1 / 3, 2 / 3, 1, 1, 1])
    endless = load_recipe(written(here, ONE_STAGE.replace("steps = 9", "warmup_steps = 5"), "endless.toml"))
    with pytest.raises(ftk.UserError, match="a warm-up of 5 steps leaves none of 5 at the peak"):
        dry_run(endless)
    late = written(here, ONE_STAGE + stages.replace("steps = 3", "steps = 99"), "late.toml")
    with pytest.raises(ftk.UserError, match="stage `second`: a warm-up of 99 steps leaves none of 18"):
        ftk.run(late, overrides=["training.epochs=12"], output=here / "late")
    assert not events_of(here / "late", "stage_started")


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ([], 5),  # 3 epochs of 6 rows, 4 a step
        (["training.epochs=2"], 3),
        (["training.epochs=0.5"], 1),
        (["training.epochs=1.5"], 3),
        (["training.epochs=2", "training.batch_size=6"], 2),
        (["training.steps=2"], 2),
    ],
)
def test_epochs_and_steps_are_the_length(settings: list[str], steps: int, here: Path) -> None:
    recipe = written(here, ONE_STAGE.replace("steps = 9\n", ""))
    result = ftk.run(recipe, overrides=settings)
    assert result.report["stages"][0]["steps"] == steps
    assert events_of(result.folder, "step")[-1]["step"] == steps


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_no_more_checkpoints_are_kept_than_asked_for(keep: int, here: Path) -> None:
    there: list[list[str]] = []

    def look(event: RunEvent) -> None:
        if event.kind == "checkpoint":
            there.append(sorted(path.name for path in Path(event.data["path"]).parent.iterdir()))

    run(
        here, "training.checkpoint_every=2", f"training.keep_checkpoints={keep}", "training.steps=7", output="run",
        observers=[look],
    )  # fmt: skip
    steps = [2, 4, 6, 7]
    kept = [steps[max(0, n - keep) : n] for n in range(1, 5)]
    assert there == [[f"step-{step:06d}" for step in those] for those in kept]


def test_without_checkpoints_one_is_written_at_the_end(here: Path) -> None:
    result = run(here, "training.checkpoint_every=0", "training.steps=7", output="run")
    assert [event["step"] for event in events_of(result.folder, "checkpoint")] == [7]
    assert not (result.folder / "checkpoints").exists(), "a finished stage needs none"


def test_steps_are_told_as_often_as_asked_for(here: Path) -> None:
    result = run(here, "training.log_every=3", "training.checkpoint_every=0", "training.steps=7", output="run")
    assert [event["step"] for event in events_of(result.folder, "step")] == [3, 6, 7]


@pytest.mark.parametrize(("has", "precision"), [(True, "bf16"), (False, "fp32")])
def test_auto_takes_bfloat16_where_the_hardware_has_it(
    has: bool, precision: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ftk.processes.hardware.has_bf16", lambda device: has)
    result = run(here, "training.precision=auto", "training.steps=1", output="run")
    assert result.report["stages"][0]["precision"] == precision
    assert all(tensor.dtype == torch.float32 for tensor in weights(result).values())


def test_weights_in_float16_are_adapted_and_not_trained(here: Path) -> None:
    saved = run(here, "training.steps=1", output="saved").folder / "model"
    model = f"model={{ use = 'pretrained', path = '{saved}', dtype = 'float16' }}"
    with pytest.raises(ftk.UserError, match="held in float16"):
        run(here, model, "training.steps=1", output="full")
    lora = run(here, model, "training.steps=1", "adaptation={ use = 'lora', rank = 4 }", output="lora")
    assert {tensor.dtype for tensor in weights(lora).values()} == {torch.float16}


def test_the_seed_decides_and_nothing_else_does(here: Path) -> None:
    torch.manual_seed(1)
    one = run(here, "training.steps=3", output="one")
    torch.manual_seed(2)
    same = run(here, "training.steps=3", output="same")
    other = run(here, "training.steps=3", "seed=4", output="other")
    assert all(torch.equal(weights(one)[name], weight) for name, weight in weights(same).items())
    assert not all(torch.equal(weights(one)[name], weight) for name, weight in weights(other).items())


def test_stages_may_train_differently(here: Path) -> None:
    text = (
        ONE_STAGE
        + f"""
[[stage]]
name = "first"
training = {{ steps = 2 }}
[[stage]]
name = "second"
training = {{ batch_size = 3, epochs = 2 }}
data = {{ train = {{ {FACTS}, relations = "currency", limit = 6 }} }}
"""
    )
    result = ftk.run(written(here, text))
    assert [stage["steps"] for stage in result.report["stages"]] == [2, 4]
