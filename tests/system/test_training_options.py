"""Every option of [training] does what it says, in whole runs; test_loop.py holds those that one step shows."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import ftk
from ftk.events import RunEvent
from ftk.recipe.reading import load_recipe
from ftk.recipe.training import Training
from ftk.running.runner import dry_run
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


def run(here: Path, *overrides: str, output: str, observers: Any = ()) -> ftk.RunResult:
    return ftk.run(written(here, ONE_STAGE), output=here / output, overrides=overrides, observers=observers)


def weights(result: ftk.RunResult) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = load_file(result.folder / "model" / "model.safetensors")
    return tensors


def test_every_option_has_a_test() -> None:
    here = Path(__file__)
    beside = (here.parent / name for name in ("test_run_watched.py", "test_sharded.py"))
    others = (*beside, here.parents[1] / "core" / "test_loop.py")
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


def stopped_at(here: Path, step: int, *settings: str, output: str) -> None:
    """A run that a signal stops after this step."""

    def watch(event: RunEvent) -> None:
        if event.kind == "step" and event.data["step"] == step - 1:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(ftk.Interrupted, match=f"after step {step}; saved"):
        run(here, *settings, output=output, observers=[watch])


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


@pytest.fixture
def recomputed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Grows whenever a layer's activations are left to be recomputed."""
    from transformers import modeling_utils

    seen = []
    plain = modeling_utils.checkpoint

    def counted(*arguments: Any, **options: Any) -> Any:
        seen.append(options)
        return plain(*arguments, **options)

    monkeypatch.setattr(modeling_utils, "checkpoint", counted)
    return seen


@pytest.mark.parametrize("adaptation", ["{ use = 'full' }", "{ use = 'lora', rank = 4 }"])
def test_gradient_checkpointing_recomputes_and_changes_nothing(
    adaptation: str, here: Path, recomputed: list[Any]
) -> None:
    common = (f"adaptation={adaptation}", "training.steps=4")
    without = run(here, *common, output="without")
    assert not recomputed
    saving = run(here, *common, "training.gradient_checkpointing=true", output="saving")
    assert len(recomputed) >= 4
    for name, weight in weights(without).items():
        torch.testing.assert_close(weights(saving)[name], weight, atol=1e-6, rtol=1e-5)


def test_gradient_checkpointing_is_refused_where_the_model_cannot(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.LlamaPreTrainedModel.supports_gradient_checkpointing", False)
    with pytest.raises(ftk.UserError, match="a LlamaForCausalLM cannot recompute"):
        run(here, "training.gradient_checkpointing=true", output="run")


def test_gradient_checkpointing_ends_with_its_stage(here: Path, recomputed: list[Any]) -> None:
    stages = """
[[stage]]
name = "first"
training = { steps = 2, gradient_checkpointing = true }
[[stage]]
name = "second"
training = { steps = 2 }
"""
    counts: list[int] = []

    def watch(event: RunEvent) -> None:
        if event.kind == "stage_finished":
            counts.append(len(recomputed))

    ftk.run(written(here, ONE_STAGE + stages), observers=[watch])
    assert counts[0] >= 2
    assert counts[1] == counts[0]


def test_the_loss_in_chunks_trains_the_same_and_is_for_many_logits(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ftk_plugins.objectives import token_loss

    seen: list[int] = []
    plain = token_loss.chunked_cross_entropy

    def counted(*arguments: Any, **options: Any) -> torch.Tensor:
        seen.append(options["chunks"])
        return plain(*arguments, **options)

    monkeypatch.setattr(token_loss, "chunked_cross_entropy", counted)
    once, auto = (
        weights(run(here, "training.steps=2", f"training.loss_chunks={chunks}", output=chunks))
        for chunks in ("1", "auto")
    )
    assert not seen
    chunked = weights(run(here, "training.steps=2", "training.loss_chunks=3", output="3"))
    assert set(seen) == {3}
    for name, weight in once.items():
        assert torch.equal(auto[name], weight)
        # Adam's first steps turn the rounding of a gradient near zero into a step; a wrong gradient moves all by 3e-3.
        assert float((chunked[name] - weight).norm()) <= 1e-4 * float(weight.norm()), name


def test_label_smoothing_is_in_the_loss_that_is_told_and_not_in_scores(here: Path) -> None:
    """The smoothed loss is linear in the share; the model before the first step is one and the same."""
    losses, starts, ends = [], [], []
    for share in (0.0, 0.1, 0.3):
        result = run(here, "training.steps=1", f"training.label_smoothing={share}", output=f"run{share}")
        losses.append(events_of(result.folder, "step")[0]["loss"])
        starts.append(result.report["start"])
        ends.append(weights(result))
    assert losses[1] - losses[0] == pytest.approx((losses[2] - losses[0]) / 3, rel=1e-3)
    assert abs(losses[2] - losses[0]) > 1e-4
    assert starts[0] == starts[1] == starts[2]
    assert any(not torch.equal(ends[2][name], weight) for name, weight in ends[0].items())


def test_what_is_switched_for_training_leaves_no_mark_on_the_model(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its configuration is that of a plain run; and a resumed run ends with the same bits."""
    compiled = []

    def compiler(function: Any, **options: Any) -> Any:
        compiled.append(type(function).__name__)
        return function

    monkeypatch.setattr(torch, "compile", compiler)
    settings = (
        "training.steps=4", "training.dropout=0.3", "training.attention=eager", "training.neftune_noise=5",
        "training.compile=true", "training.gradient_checkpointing=true",
    )  # fmt: skip
    plain = run(here, settings[0], output="plain").folder / "model"
    whole = run(here, *settings, output="whole").folder / "model"
    stopped_at(here, 3, *settings, output="stopped")
    run(here, *settings, output="stopped")
    assert weights_of(here / "whole") == weights_of(here / "stopped")
    assert weights_of(here / "whole") != weights_of(here / "plain")
    assert compiled.count("LlamaForCausalLM") == 3
    for name in ("config.json", "generation_config.json"):
        assert (whole / name).read_text() == (plain / name).read_text()


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
    monkeypatch.setattr("ftk.running.hardware.has_bf16", lambda device: has)
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
