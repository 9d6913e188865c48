"""How far each weight moved in a stage, and what mitigations say of its importance: the file ``weights.json``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from ftk.parts import CHUNK_ELEMENTS, Context, Drift, Importance, own_rows

SCHEMA = 1
"""The number of the form; docs/metrics.md tells what stands in it."""


@torch.no_grad()
def weight_table(ctx: Context, importances: Mapping[str, Mapping[str, Importance]]) -> str:
    """The content of ``weights.json``; every process calls this, and with sharded weights they add up.

    Args:
        ctx: the stage, trained, its adaptation still attached.
        importances: by mitigation, what it says of each weight.
    """
    assert ctx.adaptation is not None
    drifts = {ctx.common_name(name): drift for name, drift in ctx.adaptation.drift().items()}
    moved = {name: _moved(drift) for name, drift in drifts.items()}
    with ctx.adaptation.reference():
        began = {name: _began(drift) for name, drift in drifts.items()}
    told = {
        method: {name: found for name, found in weights.items() if name in drifts}
        for method, weights in importances.items()
    }
    numbers = {name: [float(moved[name]), float(began[name])] for name in drifts}
    for weights in told.values():
        for name, found in weights.items():
            numbers[name] += [found.total, found.cost]
    if any(isinstance(drift.weight, DTensor) for drift in drifts.values()):
        numbers = _of_all_processes(numbers, drifts, ctx)
    table: dict[str, Any] = {"schema": SCHEMA, "drift": {}, "importances": {m: {} for m, of in told.items() if of}}
    for name, (square, start, *of_methods) in numbers.items():
        norm, size = math.sqrt(square), math.sqrt(start)
        relative = norm / size if size > 0 else None  # also where the starting values cannot be read: not a number
        shape = list(drifts[name].shape)
        table["drift"][name] = {"shape": shape, "norm": _finite(norm), "relative": _finite(relative)}
        known = [method for method, weights in told.items() if name in weights]
        elements = drifts[name].weight.numel()
        for method, total, cost in zip(known, of_methods[::2], of_methods[1::2], strict=True):
            table["importances"][method][name] = {"mean": _finite(total / elements), "cost": _finite(cost)}
    return json.dumps(table, ensure_ascii=False) + "\n"


def _moved(drift: Drift) -> Tensor:
    """``Σ drift²`` over this process's rows, float32."""
    total = torch.zeros((), device=drift.weight.device)
    for start, stop in drift.chunks():
        total += drift.rows(start, stop).square().sum()
    return total


def _began(drift: Drift) -> Tensor:
    """``Σ W²`` over this process's rows as the weight stands, float32; not a number where it is quantized."""
    own = own_rows(drift.weight)[0].detach().reshape(-1)
    total = torch.zeros((), device=own.device)
    if not own.is_floating_point():
        return total + math.nan
    for piece in torch.split(own, CHUNK_ELEMENTS):
        total += piece.float().square().sum()
    return total


def _of_all_processes(
    numbers: Mapping[str, list[float]], drifts: Mapping[str, Drift], ctx: Context
) -> dict[str, list[float]]:
    """Add up what each process knows of its rows; a weight that is whole in every process counts once."""
    counts = [
        value if ctx.rank == 0 or isinstance(drifts[name].weight, DTensor) else 0.0
        for name, values in numbers.items()
        for value in values
    ]
    added = torch.tensor(counts, dtype=torch.float32, device=ctx.device)
    torch.distributed.all_reduce(added, torch.distributed.ReduceOp.SUM)
    left = iter(added.tolist())
    return {name: [next(left) for _ in values] for name, values in numbers.items()}


def _finite(value: float | None) -> float | None:
    """Six digits of it, which is what float32 sums have; JSON has no word for what is not finite."""
    return float(f"{value:.6g}") if value is not None and math.isfinite(value) else None
