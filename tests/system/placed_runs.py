"""Runs on the second device, told as JSON; a program, for torch must know a device before its first backward pass."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock, patch

import torch

import ftk
from ftk.parts import ModelSource
from ftk.processes.meeting import make_accelerator
from ftk.processes.placing import Placement, follow
from ftk.report.clock import Clock
from ftk.running import runner
from ftk.testing import toy_model
from tests.core.loops import build
from tests.second_device import second_device
from tests.system.small import events_of

AWAY = {"model.layers.0": "cpu", "model.layers.1": "disk"}
ADAPTATIONS: dict[str, dict[str, Any]] = {
    "full": {},
    "partial": {"blocks": 1},
    "lora": {"rank": 2, "init": "pissa"},
    "dora": {"rank": 2},
    "ia3": {},
    "peft": {"method": "vera", "config": {"r": 4}},
    "bottleneck": {"size": 4},
    "prefix": {"tokens": 3},
    "prompt": {"tokens": 3},
}
_save = ModelSource.save


class There:
    """Within it runs take the second device for theirs."""

    def __enter__(self) -> None:
        accelerator = make_accelerator()
        self.patches = [
            patch.object(type(accelerator), "device", property(lambda self: second_device())),
            patch.object(runner, "make_accelerator", lambda: accelerator),
            patch.object(Clock, "_event", lambda self: Mock(elapsed_time=lambda other: 0.0)),
            patch.object(ModelSource, "save", _save_from_there),
        ]
        for each in self.patches:
            each.start()

    def __exit__(self, *_: Any) -> None:
        for each in self.patches:
            each.stop()


def _save_from_there(source: Any, model: Any, processor: Any, folder: Path, state: Any = None) -> None:
    """Tensors of the second device have no storage that could be asked which of them are tied."""
    kept = model.state_dict(keep_vars=True)
    moved = {id(tensor): tensor.detach().cpu() for tensor in kept.values()}
    _save(source, model, processor, folder, {name: moved[id(tensor)] for name, tensor in kept.items()})


def learned(use: str, options: dict[str, Any], away: bool) -> list[float]:
    """Losses of a few steps, then of the reference and of the model that is left; with layers away, or on the CPU."""
    torch.manual_seed(0)
    model, main = toy_model(num_hidden_layers=2), torch.device("cpu")
    if away:
        main = second_device()
        Placement(AWAY, None, None).place(model, main)
    part = build("adaptation", use, **options)
    adapted = part.attach(model)
    follow(adapted, main)
    optimizer = torch.optim.AdamW(part.param_groups(adapted, 1e-2), foreach=False)
    ids = torch.randint(3, 200, (2, 12), generator=torch.Generator().manual_seed(0)).to(main)

    def loss(model: Any) -> Any:
        return model(input_ids=ids, labels=ids).loss

    losses = []
    for _ in range(3):
        losses.append(loss(adapted))
        losses[-1].backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad(), part.reference():
        losses.append(loss(adapted))
    if use not in ("bottleneck", "prefix", "prompt"):
        part.scale(0.5)
        drift = next(iter(part.drift().values()))
        losses.append(drift.rows(0, 2).norm())
    with torch.no_grad():
        losses.append(loss(part.merge()))
    return [float(number.detach()) for number in losses]


def outcome(recipe: Path, folder: Path) -> dict[str, Any]:
    table = ", ".join(f'"{name}" = "{place}"' for name, place in AWAY.items())
    with There():
        result = ftk.run(recipe, output=folder, overrides=[f"training.device_map={{ {table} }}"])
    told = [event["text"] for event in events_of(folder, "phase") if "weights lie" in event["text"]]
    return {"matrix": result.report["matrix"], "told": told}


def main(recipe: str, folder: str) -> None:
    second_device()
    here = Path(folder)
    told: dict[str, Any] = {
        "adaptations": {
            use: [learned(use, options, away) for away in (True, False)] for use, options in ADAPTATIONS.items()
        },
        "away": outcome(Path(recipe), here / "away"),
    }
    (here / "told.json").write_text(json.dumps(told), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
    os._exit(0)  # torch's threads for the device do not outlive the interpreter in peace
