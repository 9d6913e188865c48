"""A model divided among the processes by rows of its weights (FSDP2), and what a run does otherwise because of it.

torch's ``fully_shard`` is called here and not through Accelerate's plugin: that one acts on no CPU, wants the
optimizer at the same time, while mitigations read the shards before there is one, and knows one precision for all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed import HashStore  # type: ignore[attr-defined]
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from ftk.errors import FtkError, UserError
from ftk.parts import Gradients, ModelSource

Result = TypeVar("Result")


def make_mesh(accelerator: Accelerator) -> DeviceMesh:
    """All processes in one row; a single process is a group of its own, so that it reads and writes the same files."""
    device = accelerator.device
    if not torch.distributed.is_initialized():
        backend = torch.distributed.get_default_backend_for_device(device)
        torch.distributed.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
    return init_device_mesh(device.type, (accelerator.num_processes,))


def in_turns(accelerator: Accelerator, work: Callable[[], Result]) -> Result:
    """Let the processes of each machine do something one after another, so that a machine has room for it only once.

    Raises:
        FtkError: what ``work`` raised in one process, in all of them.
    """
    turns = torch.tensor(accelerator.local_process_index + 1, device=accelerator.device)
    torch.distributed.all_reduce(turns, torch.distributed.ReduceOp.MAX)
    done: list[Result] = []
    for turn in range(int(turns)):
        failure: FtkError | None = None
        if turn == accelerator.local_process_index:
            try:
                done.append(work())
            except FtkError as error:
                failure = error
        heard: list[Any] = [None] * accelerator.num_processes
        torch.distributed.all_gather_object(heard, failure)
        for told in filter(None, [failure, *heard]):
            raise told
    return done[0]


def shard(model: Any, mesh: DeviceMesh, precision: str) -> None:
    """Divide a model on the CPU: from now on each process holds its rows of every weight, on its device.

    Each transformer layer is put together when it computes and divided again right after; so are the embedding, the
    output layer and what is left. In ``bf16`` a layer is put together in that type, and its gradients are added up
    in float32.

    Raises:
        UserError: the weights are held in more than one type.
    """
    types = sorted({str(parameter.dtype).removeprefix("torch.") for parameter in model.parameters()})
    if len(types) > 1:
        raise UserError(
            f"training.sharding: the model's weights are held in {' and '.join(types)}, and must be of one type",
            'load the model in one type, for example with model.dtype = "float32"',
        )
    computes_in = torch.bfloat16 if precision == "bf16" else None
    rest = MixedPrecisionPolicy(reduce_dtype=torch.float32, cast_forward_inputs=False)
    inside = MixedPrecisionPolicy(computes_in, torch.float32, cast_forward_inputs=False)
    names, ends = _layers_and_ends(model)
    for module in reversed(list(model.modules())):
        is_layer = type(module).__name__ in names
        if is_layer or module in ends:
            fully_shard(module, mesh=mesh, reshard_after_forward=True, mp_policy=inside if is_layer else rest)
    fully_shard(model, mesh=mesh, reshard_after_forward=True, mp_policy=rest)
    # Now, while all weights ask for gradients: what type those have is fixed here, and holds for what is thawed later.
    fully_shard.state(model)._lazy_init()  # type: ignore[attr-defined]


def units(model: Any) -> tuple[list[list[nn.Parameter]], list[list[nn.Parameter]], list[nn.Parameter]]:
    """The parameters that :func:`shard` puts together at a time: of each layer, of each end, and what is left."""
    names, ends = _layers_and_ends(model)
    layers = [list(module.parameters()) for module in model.modules() if type(module).__name__ in names]
    outer = [list(end.parameters()) for end in ends]
    taken = {id(parameter) for unit in (*layers, *outer) for parameter in unit}
    return layers, outer, [parameter for parameter in model.parameters() if id(parameter) not in taken]


def _layers_and_ends(model: Any) -> tuple[set[str], set[nn.Module]]:
    """The class names of the model's layers, and its embedding and output layer where each has its own weight."""
    asked = [getattr(model, f"get_{end}_embeddings", lambda: None) for end in ("input", "output")]
    ends: set[Any] = {get() for get in asked} - {None}
    if len({id(end.weight) for end in ends}) < len(ends):
        ends = set()  # one weight at both ends: it belongs to what is left
    return set(getattr(model, "_no_split_modules", None) or ()), ends


def is_sharded(model: nn.Module) -> bool:
    """Whether the model is divided among the processes."""
    return isinstance(model, FSDPModule)


def average_whole(gradients: Gradients) -> None:
    """Average over the processes the gradients of parameters that each holds whole; those of shards are already.

    One that no process has, as of a head that had no rows in the step, stays none: an optimizer passes over it.
    """
    whole = {name: p for name, p in gradients.parameters().items() if not isinstance(p, DTensor)}
    if not whole:
        return
    device = next(iter(whole.values())).device
    reached = torch.tensor([p.grad is not None for p in whole.values()], dtype=torch.uint8, device=device)
    torch.distributed.all_reduce(reached, torch.distributed.ReduceOp.MAX)
    found = [gradients[name] for name, seen in zip(whole, reached.tolist(), strict=True) if seen]
    sum_together(found, divide=torch.distributed.get_world_size())


def sum_together(tensors: Iterable[Tensor], divide: int = 1) -> None:
    """Add tensors of one type up over the processes, in place and in one exchange."""
    tensors = list(tensors)
    if not tensors:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    torch.distributed.all_reduce(flat)
    pieces = torch.split(flat.div_(divide), [tensor.numel() for tensor in tensors])
    for tensor, piece in zip(tensors, pieces, strict=True):
        tensor.copy_(piece.view_as(tensor))


def gather(model: nn.Module, folder: Path, keep: bool) -> dict[str, Tensor]:
    """Put a divided model's weights together one after another, into files of ``folder``.

    Args:
        model: every process calls this with it.
        folder: empty; its files lie behind the tensors.
        keep: whether this process keeps them.

    Returns:
        The whole model's state on the CPU where ``keep``, mapped from the files and so hardly in memory; else nothing.
    """
    state: dict[str, Tensor] = {}
    first_names: dict[nn.Parameter, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if parameter in first_names:
            if keep:
                state[name] = state[first_names[parameter]]
            continue
        first_names[parameter] = name
        whole = parameter.detach()
        whole = whole.full_tensor() if isinstance(whole, DTensor) else whole
        if keep:
            file = str(folder / f"{len(state)}")
            mapped = torch.from_file(file, shared=True, size=whole.numel(), dtype=whole.dtype)
            state[name] = mapped.view(whole.shape).copy_(whole)
    if keep:
        buffers = {name: value for name, value in model.state_dict().items() if name not in state}
        state.update({name: value.cpu() for name, value in buffers.items()})
    return state


def save_model(model: Any, processor: Any, source: ModelSource, target: Path, keep: bool) -> None:
    """Have its source write a model, divided or not, with its processor; every process calls this, who keeps writes."""
    if not is_sharded(model):
        if keep:
            source.save(model, processor, target)
        return
    aside = target.with_name(f".{target.name}.gathered")
    if keep:
        aside.mkdir()
    state = gather(model, aside, keep)
    if keep:
        source.save(model, processor, target, state)
        del state
        for file in aside.iterdir():
            file.unlink()
        aside.rmdir()
