"""Runs that distil: what stands in the docs runs, is resumed, is planned, and leaves a model without its teacher."""

from __future__ import annotations

import signal
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import ftk
from ftk.events import RunEvent
from ftk.planning.machine import this_machine
from ftk.planning.plan import Planner
from ftk.recipe.reading import recipe_from_table
from ftk.testing import toy_model, toy_tokenizer
from tests.core.test_docs import DOCS, fences
from tests.system.small import FACTS, untimed

PAGE = DOCS / "variants" / "objectives" / "distillation.md"


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    folder = tmp_path / "teacher"
    toy_model(3, initializer_range=0.3, hidden_size=48, tie_word_embeddings=False).save_pretrained(folder)
    toy_tokenizer().save_pretrained(folder)
    return folder


def recipe(teacher: Path, **changes: Any) -> dict[str, Any]:
    """The fragment of the docs in which a model from scratch learns, made small, and completed."""
    (text,) = [text for _, text in fences(PAGE.read_text(encoding="utf-8"), "toml") if "scratch" in text]
    table = tomllib.loads(text)
    table["model"] |= {"tokenizer": str(teacher), "hidden_size": 32, "layers": 1}
    table["objective"]["of"]["text"] = "instruction"
    facts = tomllib.loads(f"it = {{ {FACTS}, relations = 'capital', limit = 6 }}")["it"]
    return {
        "name": "distilled", "adaptation": {"use": "full"}, "data": {"train": facts, "test": facts, "overlap": "allow"},
        "evaluator": [{"use": "perplexity"}],
        "training": {
            "steps": 6, "batch_size": 4, "micro_batch_size": 2, "checkpoint_every": 3, "log_every": 1,
            "learning_rate": 3e-3, "precision": "fp32",
        },
        **table, "objective": {**table["objective"], "teacher": str(teacher), **changes},
    }  # fmt: skip


def run(table: dict[str, Any], output: Path, stop: int = 0) -> ftk.RunResult:
    def watch(event: RunEvent) -> None:
        if event.kind == "step" and event.data["step"] == stop:
            signal.raise_signal(signal.SIGINT)

    return ftk.run(recipe_from_table(table, "test", ""), output=output, observers=[watch])


def test_a_run_goes_on_as_if_it_had_not_stopped_and_only_with_its_teacher(teacher: Path, tmp_path: Path) -> None:
    table = recipe(teacher)
    whole = run(table, tmp_path / "whole")
    with pytest.raises(ftk.Interrupted):
        run(table, tmp_path / "again", 3)
    saved = {path.name: path.read_bytes() for path in teacher.iterdir()}
    toy_model(4, hidden_size=48, tie_word_embeddings=False).save_pretrained(teacher)
    with pytest.raises(ftk.UserError, match="what its objective reads beside them, changed"):
        run(table, tmp_path / "again")
    for name, content in saved.items():
        (teacher / name).write_bytes(content)
    again = run(table, tmp_path / "again")
    kept, expected = (load_file(done.folder / "model" / "model.safetensors") for done in (again, whole))
    assert kept.keys() == expected.keys()
    assert all(torch.equal(kept[name], tensor) for name, tensor in expected.items())
    assert untimed(again.report) == untimed(whole.report)
    assert sum(tensor.numel() for tensor in kept.values()) == whole.report["stages"][0]["total_parameters"]
    assert max(tensor.shape[-1] for tensor in kept.values()) < 48 * 4, "the student's sizes, not the teacher's"
    table["training"]["micro_batch_size"] = 4
    cut = run(table, tmp_path / "cut")
    for name, tensor in load_file(cut.folder / "model" / "model.safetensors").items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside another task"])
def test_a_teacher_that_does_not_fit_stops_a_run_before_it_trains(teacher: Path, tmp_path: Path, beside: bool) -> None:
    table = recipe(tmp_path / "nowhere")
    table["model"]["tokenizer"] = str(teacher)
    if beside:
        table["objective"] = {
            "use": "multitask", "tasks": {"read": {"use": "causal_lm", "text": "output"}, "learn": table["objective"]},
        }  # fmt: skip
        for role in ("train", "test"):
            rows = {"weight": 1, **table["data"][role]}
            table["data"][role] = {"use": "mixture", "parts": {"read": rows, "learn": rows}}
    with pytest.raises(ftk.UserError, match="the teacher: no folder"):
        run(table, tmp_path / "run")
    assert not list((tmp_path / "run" / "stages").glob("*"))


def test_a_plan_counts_the_teacher_and_reads_none_of_its_weights(teacher: Path) -> None:
    size = sum(weight.numel() for weight in toy_model(3, hidden_size=48, tie_word_embeddings=False).parameters())
    (teacher / "model.safetensors").write_bytes(b"none")
    plan = Planner(recipe_from_table(recipe(teacher), "test", ""), this_machine(1)).stage(1)
    assert plan.unknown == ""
    held = dict(next(station.parts for station in plan.stations if station.name == "step"))
    assert held["objective"] == pytest.approx(4 * size, rel=0.01)
    other = recipe(teacher)
    other["objective"] = other["objective"]["of"]
    plain = Planner(recipe_from_table(other, "test", ""), this_machine(1)).stage(1)
    assert "objective" not in plain.stations[-1].parts
