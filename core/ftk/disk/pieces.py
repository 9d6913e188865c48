"""Tensors that are divided among processes, on disk: each writes its rows, and any number of them reads them back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard

from ftk.parts import State, own_rows


def is_divided(states: Mapping[str, State]) -> bool:
    """Whether any tensor is divided, so that all processes write together."""
    return any(isinstance(value, DTensor) for state in states.values() for value in state.values())


def piece(part: str, rank: int) -> str:
    """The name of the file, without its ending, that holds a process's rows of a part's tensors."""
    return f"{part}.rank{rank}"


def own_pieces(tensors: Mapping[str, DTensor]) -> dict[str, Tensor]:
    """This process's rows of each tensor."""
    return {name: own_rows(tensor)[0] for name, tensor in tensors.items()}


def index_of(part: str, tensors: Mapping[str, DTensor]) -> str:
    """Which file holds which rows, as JSON text: of each tensor its shape, and the row with which each file begins."""
    world = torch.distributed.get_world_size()
    index = {
        "files": [f"{piece(part, rank)}.safetensors" for rank in range(world)],
        "tensors": {
            name: {"shape": list(tensor.shape), "rows": cut(tensor.shape[0], world)} for name, tensor in tensors.items()
        },
    }
    return json.dumps(index)


def cut(rows: int, world: int) -> list[int]:
    """The row at which each process's begin, and at the end ``rows``: even pieces, the last smaller or empty."""
    step = -(-rows // world)
    return [min(rows, rank * step) for rank in range(world + 1)]


def read_pieces(path: Path, mesh: DeviceMesh | None) -> dict[str, Tensor]:
    """Read the tensors of an index back: this process's rows of each, out of the files that hold them.

    Args:
        path: the index.
        mesh: the processes among which the tensors are divided now; None for whole tensors.

    Raises:
        KeyError, TypeError, ValueError: the index is not one.
    """
    index = json.loads(path.read_text(encoding="utf-8"))
    files = [safe_open(path.parent / file, "pt") for file in index["files"]]
    found: dict[str, Tensor] = {}
    for name, told in index["tensors"].items():
        shape = torch.Size(told["shape"])
        mine = cut(shape[0], mesh.size())[mesh.get_local_rank() :][:2] if mesh else [0, shape[0]]
        own = torch.cat(list(_rows(name, files, told["rows"], *mine)))
        if mesh is None:
            found[name] = own
            continue
        stride = torch.empty(shape, device="meta").stride()
        found[name] = DTensor.from_local(
            own.to(mesh.device_type), mesh, [Shard(0)], run_check=False, shape=shape, stride=stride
        )
    return found


def _rows(name: str, files: Sequence[Any], starts: Sequence[int], first: int, last: int) -> Iterator[Tensor]:
    """The rows from ``first`` to before ``last``, file by file; at least one tensor, though it be empty."""
    for number, file in enumerate(files):
        start, stop = max(first, starts[number]), min(last, starts[number + 1])
        if start < stop or number == 0:
            stop = max(start, stop)
            rows = file.get_slice(name)
            begin = starts[number]
            yield rows[start - begin : stop - begin] if start < stop else rows[0:0]
