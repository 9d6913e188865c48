"""A plan's numbers against numbers by hand, against the tensors that autograd keeps, and against the real allocator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ftk.errors import UserError
from ftk.planning.machine import GIB, gpus, in_words, parse_memory, this_machine
from ftk.planning.memory import told_apart
from ftk.planning.plan import Planner
from ftk.planning.tracking import Tracker
from ftk.planning.widest import longest, widest_cuts
from ftk.recipe.reading import recipe_from_table
from ftk.running.rehearsal import copy_with
from ftk.testing.toys import toy_context, toy_model, toy_tokenizer
from ftk_plugins.objectives.causal_lm.causal_lm import CausalLM
from ftk_plugins.objectives.causal_lm.options import CausalLMOptions
from tests.core.planned import CHANNELS, LAYERS, PROJECTIONS, VOCABULARY, WEIGHTS, WIDE, recipe_table

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def parts_of(planned_rows: Path) -> Callable[..., dict[str, dict[str, int]]]:
    """``parts_of(training={...})``: the parts of each station of a plan, by its name."""

    def parts(**changes: Any) -> dict[str, dict[str, int]]:
        recipe = recipe_from_table(recipe_table(planned_rows, **changes), "test", "")
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


def test_the_peak_is_that_of_the_real_allocator(planned_rows: Path) -> None:
    recipe = recipe_from_table(recipe_table(planned_rows, training={"steps": 1, "batch_size": 10}), "test", "")
    planner = Planner(recipe, this_machine(1))
    plan = planner.stage(1)
    parts = next(station.parts for station in plan.stations if station.name == "step")
    passing = sum(parts.get(part, 0) for part in ("activations", "loss", "gradients"))
    stage = planner.set_up(1, planner.job.load())
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


def test_the_widest_micro_batch_is_the_widest_that_the_run_will_draw(planned_rows: Path) -> None:
    recipe = recipe_from_table(recipe_table(planned_rows, training={"epochs": 3, "batch_size": 4}), "test", "")
    planner = Planner(recipe, this_machine(1))
    stage = planner.set_up(1, planner.outline(1))
    mixer = stage.mixer()
    drawn = [mixer.draw(start, start + 4) for start in range(0, 30, 4)]
    lengths = [max(len(item["input_ids"]) for _, item in batch) for batch in drawn]
    (cut,) = widest_cuts(stage, 1)
    assert len(cut[1]) * longest(cut) == 4 * max(lengths)
    stage.ctx = replace(stage.ctx, micro_batch_size=2)
    assert len(widest_cuts(stage, 1)) == 2  # several in a step: the second finds the first one's gradients there


def test_nothing_is_allocated_for_a_model_of_any_size(planned_rows: Path) -> None:
    sizes = {"hidden_size": 8192, "layers": 2, "heads": 64, "intermediate_size": 28672}
    model = {"use": "scratch", "vocabulary_size": VOCABULARY, **sizes}
    before = this_machine(1).taken()
    plan = Planner(recipe_from_table(recipe_table(planned_rows, model=model), "test", ""), gpus(24 * GIB, 1)).stage(1)
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


def each_of_four(planned_rows: Path, **changes: Any) -> tuple[dict[str, int], dict[str, int]]:
    """The parts of a step on one device, and on each of four."""
    alone, shared = (
        Planner(recipe_from_table(recipe_table(planned_rows, **changes), "test", ""), gpus(GIB, devices)).stage(1)
        for devices in (1, 4)
    )
    return dict(alone.stations[-1].parts), dict(shared.stations[-1].parts)


def test_divided_among_four_each_holds_a_quarter_and_puts_layers_together(planned_rows: Path) -> None:
    training = {"steps": 6, "batch_size": 4, "sharding": "full"}
    alone, shared = each_of_four(planned_rows, training=training)
    for part in ("weights", "optimizer", "starting copy"):
        assert shared[part] == pytest.approx(alone[part] / 4, abs=4)
    # Two layers in bf16, one more for its gradients and again for these in float32; embedding and norm throughout.
    layer = PROJECTIONS // LAYERS + 2 * CHANNELS
    assert shared["put together"] == 2 * 2 * layer + (2 + 4) * layer + 4 * (VOCABULARY + 1) * CHANNELS


def test_adapters_are_whole_on_each_device(planned_rows: Path) -> None:
    training = {"steps": 6, "batch_size": 4, "sharding": "full"}
    ewc = [{"use": "ewc", "samples": 4}]
    alone, shared = each_of_four(planned_rows, training=training, adaptation={"use": "lora", "rank": 4}, mitigation=ewc)
    adapters = LAYERS * 4 * 4 * (4 * 2 * CHANNELS + 3 * (CHANNELS + WIDE))
    assert shared["weights"] == pytest.approx(WEIGHTS + adapters, rel=0.01)
    assert shared["optimizer"] == alone["optimizer"]
    assert shared["mitigation ewc"] == PROJECTIONS


def test_whole_models_on_several_devices_exchange_gradients_in_buckets(planned_rows: Path) -> None:
    alone, shared = each_of_four(planned_rows)
    assert shared["exchange"] == 4 * WEIGHTS
    assert shared["weights"] == alone["weights"]
