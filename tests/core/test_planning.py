"""A plan's numbers against numbers by hand, against the tensors that autograd keeps, and against the real allocator."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor, nn

from ftk.cli import cli
from ftk.errors import UserError
from ftk.planning.changes import changes
from ftk.planning.machine import GIB, gpus, in_words, parse_memory, this_machine
from ftk.planning.memory import told_apart
from ftk.planning.plan import Planner
from ftk.planning.tracking import Tracker
from ftk.planning.widest import longest, widest_cuts
from ftk.recipe.reading import recipe_from_table
from ftk.recipe.specs import Recipe
from ftk.running.rehearsal import copy_with
from ftk.testing.toys import toy_context, toy_model, toy_tokenizer
from ftk_plugins.objectives.causal_lm.causal_lm import CausalLM
from ftk_plugins.objectives.causal_lm.options import CausalLMOptions

CPU = torch.device("cpu")
CHANNELS, LAYERS, WIDE, VOCABULARY = 64, 2, 256, 300
PROJECTIONS = LAYERS * (4 * CHANNELS * CHANNELS + 3 * CHANNELS * WIDE)
"""Weights of the linear layers below: four of attention and three of the feed-forward part in each layer."""

WEIGHTS = PROJECTIONS + VOCABULARY * CHANNELS + (2 * LAYERS + 1) * CHANNELS
"""With the tied embedding and the norms."""


def recipe_table(rows: Path, **changes: Any) -> dict[str, Any]:
    """A stage of full tuning on ten texts of 4 to 40 bytes."""
    data = {"use": "files", "path": str(rows)}
    return {
        "name": "planned",
        "model": {
            "use": "scratch", "hidden_size": CHANNELS, "layers": LAYERS, "heads": 4, "vocabulary_size": VOCABULARY,
        },
        "objective": {"use": "causal_lm", "append_eos": False},
        "adaptation": {"use": "full"},
        "data": {"train": data, "retain": data},
        "training": {"steps": 6, "batch_size": 4, "precision": "fp32"},
        **changes,
    }  # fmt: skip


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("planned") / "rows.jsonl"
    texts = ["".join(chr(97 + (7 * n + k * k) % 26) for k in range(4 * n)) for n in range(1, 11)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def parts_of(rows: Path) -> Callable[..., dict[str, dict[str, int]]]:
    """``parts_of(training={...})``: the parts of each station of a plan, by its name."""

    def parts(**changes: Any) -> dict[str, dict[str, int]]:
        recipe = recipe_from_table(recipe_table(rows, **changes), "test", "")
        plan = Planner(recipe, this_machine(1)).stage(1)
        assert plan.unknown == ""
        return {station.name: dict(station.parts) for station in plan.stations}

    return parts


def test_numbers_by_hand_of_two_layers() -> None:
    model = nn.Sequential(nn.Linear(256, 512, bias=False), nn.ReLU(), nn.Linear(512, 128, bias=False))
    inputs = torch.ones(64, 256)
    tracker = Tracker(CPU)
    model = copy_with(model, tracker.hollow)
    tracker.claim(model.parameters(), "weights")
    matrices = 4 * (256 * 512 + 512 * 128)
    with tracker, told_apart(model, tracker):
        with tracker.counting("loss"):
            output = model(inputs)
            # What is left of the first layer is what ReLU gave; the last layer's output is held by hand.
            assert tracker.held["activations"] == 4 * 64 * (512 + 128)
            output.sum().backward()
            del output
        assert tracker.held["gradients"] == tracker.held["weights"] == matrices
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        with tracker.counting("optimizer"):
            optimizer.step()
        assert tracker.held["optimizer"] == 2 * matrices + 2 * 4  # two averages, and a step count for each matrix
        optimizer.zero_grad()
    assert +tracker.held == Counter(weights=matrices, optimizer=2 * matrices + 8)


def test_what_the_forward_pass_leaves_is_what_autograd_keeps() -> None:
    model, objective = toy_model(hidden_size=64, intermediate_size=256), CausalLM(CausalLMOptions())
    items = [objective.encode({"text": "abcdefgh" * 6}, toy_tokenizer()) for _ in range(8)]
    batch = objective.collate(items)
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = objective.loss(model, batch, toy_context(model, objective))
    for parameter in model.parameters():
        kept.pop(parameter.untyped_storage().data_ptr(), None)
    keep(loss.outputs["logits"])

    tracker = Tracker(CPU)
    model = copy_with(model, tracker.hollow)
    tracker.claim(model.parameters(), "weights")
    with tracker, told_apart(model, tracker), tracker.counting("loss"):
        loss = objective.loss(model, batch, toy_context(model, objective))
    assert tracker.held["activations"] + tracker.held["loss"] == pytest.approx(sum(kept.values()), rel=0.02)


def test_the_peak_is_that_of_the_real_allocator(rows: Path) -> None:
    recipe = recipe_from_table(recipe_table(rows, training={"steps": 1, "batch_size": 10}), "test", "")
    planner = Planner(recipe, this_machine(1))
    plan = planner.stage(1)
    parts = next(station.parts for station in plan.stations if station.name == "step")
    passing = sum(parts.get(part, 0) for part in ("activations", "loss", "gradients"))
    loaded = planner.job.load_start()
    stage = planner.set_up(1, loaded)
    ((objective, items),) = widest_cuts(stage, 1)
    batch = objective.collate(items)
    stage.ctx.model.train()
    activity = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activity, profile_memory=True) as profile:
        with stage.ctx.autocast():
            loss = objective.loss(stage.ctx.model, batch, stage.ctx)
        torch.autograd.backward(loss.total)
    changes = [event.nbytes() for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = most = 0
    for change in changes:
        held += change
        most = max(most, held)
    assert passing == pytest.approx(most, rel=0.05)


def test_full_tuning_holds_weights_gradients_two_averages_and_a_copy(parts_of) -> None:
    step = parts_of()["step"]
    assert step["weights"] == pytest.approx(4 * WEIGHTS, rel=0.001)  # and the rotary frequencies
    assert step["starting copy"] == 4 * WEIGHTS
    assert step["optimizer"] == pytest.approx(8 * WEIGHTS, rel=0.01)


def test_lora_under_ewc_holds_adapters_and_one_number_for_each_weight_that_drifts(parts_of) -> None:
    lora = {"use": "lora", "rank": 4}
    found = parts_of(adaptation=lora, mitigation=[{"use": "ewc"}])
    adapters = LAYERS * 4 * (4 * 2 * CHANNELS + 3 * (CHANNELS + WIDE))
    step = found["step"]
    assert step["weights"] == pytest.approx(4 * (WEIGHTS + adapters), rel=0.001)
    assert step["mitigation ewc"] == 4 * PROJECTIONS
    assert step["optimizer"] == pytest.approx(8 * adapters, rel=0.01)
    assert "starting copy" not in step
    assert found["remember"]["mitigation ewc"] >= 4 * PROJECTIONS
    assert "optimizer" not in found["remember"]


def test_a_checkpoint_copies_weights_and_state_and_lasts_while_training_goes_on(parts_of) -> None:
    copied = 4 * WEIGHTS + 8 * WEIGHTS
    found = parts_of(training={"steps": 6, "batch_size": 4, "precision": "fp32", "checkpoint_every": 3})
    assert found["step"]["checkpoint"] == pytest.approx(copied, rel=0.01)
    assert found["save"]["checkpoint"] == pytest.approx(copied, rel=0.01)
    assert {"activations", "gradients"}.isdisjoint(found["save"])
    assert "checkpoint" not in parts_of()["step"]  # the only one is the last


def test_optimizers_hold_what_they_keep(parts_of) -> None:
    momentum = parts_of(training={"steps": 6, "optimizer": "sgd"})["step"]["optimizer"]
    assert momentum == pytest.approx(4 * WEIGHTS, rel=0.01)
    rows_and_columns = parts_of(training={"steps": 6, "optimizer": "adafactor"})["step"]["optimizer"]
    assert rows_and_columns < 0.2 * momentum


def test_recomputing_and_smaller_micro_batches_take_less(parts_of) -> None:
    def passing(**training: Any) -> int:
        step = parts_of(training={"steps": 6, "batch_size": 8, **training})["step"]
        return step.get("activations", 0) + step.get("loss", 0)

    whole = passing()
    assert passing(gradient_checkpointing=True) < 0.7 * whole
    assert passing(micro_batch_size=2) < 0.5 * whole


def test_a_loss_in_chunks_takes_less(parts_of) -> None:
    objective = {"use": "causal_lm", "append_eos": False}
    whole, chunks = (
        parts_of(objective=objective, training={"steps": 6, "batch_size": 8, "loss_chunks": chunks})["step"]
        for chunks in (1, 8)
    )
    assert chunks.get("loss", 0) < 0.5 * whole["loss"]


def test_the_widest_micro_batch_is_the_widest_that_the_run_will_draw(rows: Path) -> None:
    recipe = recipe_from_table(recipe_table(rows, training={"epochs": 3, "batch_size": 4}), "test", "")
    planner = Planner(recipe, this_machine(1))
    stage = planner.set_up(1, planner.outline(1))
    mixer = stage.mixer()
    drawn = [mixer.draw(start, start + 4) for start in range(0, 30, 4)]
    lengths = [max(len(item["input_ids"]) for _, item in batch) for batch in drawn]
    (cut,) = widest_cuts(stage, 1)
    assert len(cut[1]) * longest(cut) == 4 * max(lengths)
    stage.ctx = replace(stage.ctx, micro_batch_size=2)
    assert len(widest_cuts(stage, 1)) == 2  # several in a step: the second finds the first one's gradients there


def test_nothing_is_allocated_for_a_model_of_any_size(rows: Path) -> None:
    sizes = {"hidden_size": 8192, "layers": 2, "heads": 64, "intermediate_size": 28672}
    model = {"use": "scratch", "vocabulary_size": VOCABULARY, **sizes}
    before = this_machine(1).taken()
    plan = Planner(recipe_from_table(recipe_table(rows, model=model), "test", ""), gpus(24 * GIB, 1)).stage(1)
    assert plan.counts["total_parameters"] > 1.9e9
    assert plan.peak > 16 * 1.9e9
    assert not plan.fits
    assert this_machine(1).taken() - before < 2e8


@pytest.mark.parametrize(
    ("text", "size"), [("80GB", 80 * GIB), ("80 GiB", 80 * GIB), ("24g", 24 * GIB), ("512MB", GIB // 2)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["80", "0GB", "eighty", "-1GB", "1TB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UserError, match="no size"):
        parse_memory(text)


def test_sizes_in_words() -> None:
    told = [in_words(size) for size in (80 * GIB, 1.5 * GIB, 100 * 2**20, 2**19)]
    assert told == ["80 GiB", "1.5 GiB", "100 MiB", "0.5 MiB"]


def each_of_four(rows: Path, **changes: Any) -> tuple[dict[str, int], dict[str, int]]:
    """The parts of a step on one device, and on each of four."""
    alone, shared = (
        Planner(recipe_from_table(recipe_table(rows, **changes), "test", ""), gpus(GIB, devices)).stage(1)
        for devices in (1, 4)
    )
    return dict(alone.stations[-1].parts), dict(shared.stations[-1].parts)


def test_divided_among_four_each_holds_a_quarter_and_puts_layers_together(rows: Path) -> None:
    training = {"steps": 6, "batch_size": 4, "sharding": "full"}
    alone, shared = each_of_four(rows, training=training)
    for part in ("weights", "optimizer", "starting copy"):
        assert shared[part] == pytest.approx(alone[part] / 4, abs=4)
    # Two layers in bf16, one more for its gradients and again for these in float32; embedding and norm throughout.
    layer = PROJECTIONS // LAYERS + 2 * CHANNELS
    assert shared["put together"] == 2 * 2 * layer + (2 + 4) * layer + 4 * (VOCABULARY + 1) * CHANNELS


def test_adapters_are_whole_on_each_device(rows: Path) -> None:
    training = {"steps": 6, "batch_size": 4, "sharding": "full"}
    ewc = [{"use": "ewc", "samples": 4}]
    alone, shared = each_of_four(rows, training=training, adaptation={"use": "lora", "rank": 4}, mitigation=ewc)
    adapters = LAYERS * 4 * 4 * (4 * 2 * CHANNELS + 3 * (CHANNELS + WIDE))
    assert shared["weights"] == pytest.approx(WEIGHTS + adapters, rel=0.01)
    assert shared["optimizer"] == alone["optimizer"]
    assert shared["mitigation ewc"] == PROJECTIONS


def test_whole_models_on_several_devices_exchange_gradients_in_buckets(rows: Path) -> None:
    alone, shared = each_of_four(rows)
    assert shared["exchange"] == 4 * WEIGHTS
    assert shared["weights"] == alone["weights"]


def ftk_plan(*arguments: str, probe: bool = False) -> Result:
    return CliRunner().invoke(cli, ["plan", *arguments, *([] if probe else ["--no-probe"])])


@pytest.fixture(scope="module")
def recipe_file(rows: Path) -> Path:
    """The same recipe as a file, with a published model's configuration and tokenizer, and no weights."""
    folder = rows.parent / "model"
    toy_model(hidden_size=64, intermediate_size=256).config.save_pretrained(folder)
    toy_tokenizer().save_pretrained(folder)
    path = rows.parent / "recipe.toml"
    path.write_text(
        f"""
        name = "planned"
        model = {{ use = "pretrained", path = "{folder}" }}
        objective = {{ use = "causal_lm", append_eos = false }}
        adaptation = {{ use = "full" }}
        data = {{ train = {{ use = "files", path = "{rows}" }} }}
        training = {{ steps = 6, batch_size = 8 }}
        """,
        encoding="utf-8",
    )
    return path


def test_a_plan_needs_no_weights_and_says_that_it_fits(recipe_file: Path) -> None:
    assert not list(recipe_file.parent.rglob("*.safetensors"))
    told = ftk_plan(str(recipe_file))
    assert told.exit_code == 0, told.output
    assert "10 rows, 220 tokens an epoch, 6 steps of 8 rows" in told.stdout
    assert "it fits: " in told.stdout


def test_a_plan_that_does_not_fit_says_what_to_change(recipe_file: Path) -> None:
    plan = json.loads(ftk_plan(str(recipe_file), "--json").stdout)
    model = plan["stages"][0]["peak_bytes"] - plan["stages"][0]["memory"]["step"]["libraries"]
    memory = f"{(GIB + int(0.8 * model)) / 0.9 / 2**20:.3f}MB"  # of a GPU a GiB is taken before, and a tenth stays free
    told = ftk_plan(str(recipe_file), "--memory", memory, "--json")
    assert told.exit_code == 1
    plan = json.loads(told.stdout)
    assert (plan["schema"], plan["fits"], plan["machine"]["here"]) == (1, False, False)
    (stage,) = plan["stages"]
    assert stage["peak_bytes"] > plan["machine"]["room_bytes"]
    assert stage["seconds_per_step"] is None
    text = ftk_plan(str(recipe_file), "--memory", memory).stdout
    assert "it does not fit: " in text
    assert "--set 'training." in text


def test_changes_come_one_on_top_of_the_other_until_it_fits(rows: Path) -> None:
    recipe = recipe_table(rows, training={"steps": 6, "batch_size": 8, "precision": "fp32"})
    planner = Planner(recipe_from_table(recipe, "test", ""), gpus(2 * GIB, 1))
    plan = planner.stage(1)
    held = plan.stations[-1].parts["weights"] + plan.stations[-1].parts["optimizer"]
    planner = Planner(planner.recipe, gpus(int((GIB + 1.1 * held) / 0.9), 1))

    def changed(settings: list[str]) -> Recipe:
        return recipe_from_table(recipe, "test", "", overrides=settings)

    told = list(changes(planner, 1, planner.stage(1), changed))
    assert [change.setting for change in told][:2] == [
        "training.micro_batch_size=1",
        "training.gradient_checkpointing=true",
    ]
    peak = plan.peak
    for number, change in enumerate(told, start=1):
        assert change.saves == peak - change.plan.peak > 0
        peak = change.plan.peak
        again = planner.changed(changed([earlier.setting for earlier in told[:number]])).stage(1)
        assert again.peak == peak
    assert [change.plan.fits for change in told] == [False] * (len(told) - 1) + [True]


def test_several_devices_share_the_rows(recipe_file: Path) -> None:
    alone, shared = (
        json.loads(ftk_plan(str(recipe_file), "--memory", "8GB", "--devices", devices, "--json").stdout)["stages"][0]
        for devices in ("1", "4")
    )
    assert (alone["micro_batch"]["rows"], shared["micro_batch"]["rows"]) == (8, 2)
    assert shared["memory"]["step"]["activations"] < 0.5 * alone["memory"]["step"]["activations"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--memory", "lots"), "--memory lots: no size of a memory"),
        (("--memory", "8GB", "--devices", "9"), "gives 9 processes less than a row each"),
        (("--set", "model.path='nowhere/at/all'"), "model.path: no folder nowhere/at/all"),
    ],
)
def test_mistakes_are_told(arguments: tuple[str, ...], told: str, recipe_file: Path) -> None:
    result = ftk_plan(str(recipe_file), *arguments)
    assert result.exit_code == 2
    assert told in result.stderr


def test_a_probe_times_steps_on_made_up_weights(recipe_file: Path) -> None:
    (stage,) = json.loads(ftk_plan(str(recipe_file), "--json", probe=True).stdout)["stages"]
    assert stage["seconds_per_step"] > 0
    assert stage["seconds"] == pytest.approx(6 * stage["seconds_per_step"])
