"""A run's folder made up for tests of its page: two stages with EWC, every name and text of one's choice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

LAYERS, KINDS = 3, ("self_attn.q_proj", "mlp.up_proj")


def weights() -> dict[str, Any]:
    """A ``weights.json`` of three layers with two matrices and a norm each, and an embedding."""
    names = [f"model.layers.{layer}.{kind}.weight" for layer in range(LAYERS) for kind in KINDS]
    drift = {
        name: {"shape": [4, 4], "norm": 0.5 + at, "relative": (0.5 + at) / 10} for at, name in enumerate(names, start=1)
    }
    ewc = {name: {"mean": 10.0**-at, "cost": float(at)} for at, name in enumerate(names)}
    drift["model.embed_tokens.weight"] = {"shape": [8, 4], "norm": 2.0, "relative": None}
    drift["model.layers.0.norm.weight"] = {"shape": [4], "norm": 1.0, "relative": 0.5}
    return {"schema": 1, "drift": drift, "importances": {"ewc": ewc}}


def write_run(
    folder: Path,
    tasks: tuple[str, str] = ("capitals", "currencies"),
    text: str = "Paris",
    status: str = "completed",
    **more: Any,
) -> Path:
    """Write the folder of a run.

    Args:
        folder: where to; made.
        tasks: the names of its stages and tasks.
        text: stands wherever a run has text of somebody's: prompts, answers, recipe, warning, environment.
        status: of its report; ``interrupted`` has no second stage in it.
        more: further keys of the report.
    """
    folder.mkdir(parents=True)
    done = 2 if status == "completed" else 1
    matrix = [[0.8, 0.1], [0.6, 0.9]][:done]
    answers = [
        {"row": 3, "prompt": f"What is {text}?", "expected": text, "answer": f"{text}{after}"} for after in range(3)
    ]
    stages = [
        {
            "name": task, "steps": 20, "tokens": 400, "seconds": 2.0, "tokens_per_second": 200.0,
            "peak_memory_bytes": 2**28, "adaptation": "lora", "objective": "instruction", "precision": "fp32",
            "trainable_parameters": 10, "total_parameters": 100, "stopped_at": None, "kept_step": 20,
            "mitigations": {"ewc": {"seconds": 0.5, "note": text, "course": [
                {"step": step, "strength": step / 10, "kept": dict.fromkeys(tasks, 1 - step / 40), "said": text}
                for step in (5, 10, 20)]}},
            "history": [
                {"step": step, "tokens": step, "scores": {name: {"accuracy": step / 30} for name in tasks}}
                for step in (0, 10, 20)
            ],
        }
        for task in tasks[:done]
    ]  # fmt: skip
    report = {
        "schema": 2, "status": "completed" if done == 2 else "running", "name": f"trial {text}", "recipe_sha256": "0",
        "ftk": "0.1.0", "seed": 0, "tasks": list(tasks), "matrix": {"accuracy": matrix, "perplexity": [
            [2.0, 90.0], [4.0, 3.0]][:done]},
        "higher_is_better": {"accuracy": True, "perplexity": False},
        "start": {"accuracy": [0.1, 0.05], "perplexity": [100.0, 110.0]},
        "summary": {
            "accuracy": {"average": 0.75, "forgetting": 0.2}, "perplexity": {"average": 3.5, "forgetting": None}},
        "details": {"samples": [
            {"after": after, "task": tasks[0], "answers": [answers[after]]} for after in range(done + 1)]},
        "stages": stages, **more,
    }  # fmt: skip
    events: list[dict[str, Any]] = [{"kind": "run_started", "time": 1.8e9, "device": "cpu", "tasks": list(tasks)}]
    for number, task in enumerate(tasks, start=1):
        events.append({"kind": "stage_started", "stage": number, "name": task, "steps": 20, "first_step": 0})
        events += [
            {
                "kind": "step", "stage": number, "step": step, "steps": 20, "loss": 4.0 / (step + number),
                "learning_rate": 1e-3 * step,
            }
            for step in range(1, 21 if number <= done else 8)
        ]  # fmt: skip
    events += [{"kind": "warning", "text": text}, {"kind": "run_finished", "status": status}]
    lines = "".join(json.dumps(event) + "\n" for event in events)
    (folder / "events.jsonl").write_text(lines + '{"kind": "st', encoding="utf-8")  # as a kill leaves it
    (folder / "report.json").write_text(json.dumps(report), encoding="utf-8")
    claim = {"sha256": "0123456789abcdef", "recipe": {"name": f"trial {text}", "seed": 0}}
    (folder / "recipe.resolved.json").write_text(json.dumps(claim), encoding="utf-8")
    (folder / "recipe.toml").write_text(f"# {text}\n", encoding="utf-8", errors="replace")
    (folder / "environment.json").write_text(json.dumps({"ftk": "0.1.0", "libraries": {"torch": text}}))
    for number, task in enumerate(tasks[:done], start=1):
        (folder / "stages" / f"{number}-{task}").mkdir(parents=True)
        (folder / "stages" / f"{number}-{task}" / "weights.json").write_text(json.dumps(weights()))
    return folder
