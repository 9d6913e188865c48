"""What takes the steps of ``[training]``: optimizers over parameter groups, their rates, their state by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Muon, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers.optimization import Adafactor

from ftk.errors import UserError
from ftk.parts import Adaptation, State, own_rows, weight_kinds
from ftk.plugin.registry import one_line
from ftk.recipe import optimizers
from ftk.recipe.training import Training

Groups = list[dict[str, Any]]


def build_optimizer(options: Training, groups: Groups, model: nn.Module, device: torch.device) -> Optimizer:
    """The optimizer that ``[training]`` asks for.

    Args:
        options: its ``optimizer`` and ``weight_decay``; the learning rates stand in the groups.
        groups: as an adaptation's ``param_groups`` gives them.
        model: that owns the parameters.
        device: where they are.

    Raises:
        UserError: the optimizer has nothing to act on here, or its package is not installed or fits no device.
    """
    chosen, decay = options.optimizer, options.weight_decay
    match chosen:
        case optimizers.Adamw():
            return _adamw(chosen, groups, decay, device)
        case optimizers.Muon():
            return _muon(chosen, groups, decay, model, device)
        case optimizers.Sgd():
            return DecoupledSGD(groups, decay, chosen.momentum, chosen.nesterov)
        case optimizers.Adafactor():
            factored: Optimizer = Adafactor(
                groups, lr=options.learning_rate, eps=(chosen.epsilon, 1e-3), clip_threshold=chosen.clip_threshold,
                decay_rate=-chosen.decay_rate, weight_decay=decay, scale_parameter=chosen.scale_by_weights,
                relative_step=False,
            )  # fmt: skip
            return factored
        case optimizers.Adamw8bit():
            return _adamw_8bit(chosen, groups, decay, device)


def sizes_of(adaptation: Adaptation, model: nn.Module) -> tuple[int, int]:
    """How many parameters a stage trains, some of them perhaps not from its start, and how many there are."""
    trained = [parameter for group in adaptation.param_groups(model, 1.0) for parameter in group["params"]]
    every = {id(parameter): _size(parameter) for parameter in (*model.parameters(), *trained)}
    return sum(p.numel() for p in trained), sum(every.values())


def _size(parameter: nn.Parameter) -> int:
    """How many numbers it stands for: bitsandbytes packs two of 4 bits into one."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else int(torch.Size(state.shape).numel())


def build_schedule(options: Training, optimizer: Optimizer, steps: int) -> LambdaLR:
    """The learning rate's course over a stage of ``steps``, the same for every group of parameters."""
    return LambdaLR(optimizer, lambda step: options.rate_share(step, steps))


class DecoupledSGD(SGD):
    """torch's SGD, with the weights shrunk apart from the gradient as in AdamW (Loshchilov & Hutter 2019, alg. 1)."""

    def __init__(self, groups: Groups, decay: float, momentum: float, nesterov: bool) -> None:
        shrunk = [{"shrink": decay, **group} for group in groups]
        for group in shrunk:
            group["shrink"] = group.pop("weight_decay", group["shrink"])
        super().__init__(shrunk, momentum=momentum, nesterov=nesterov)

    def step(self, closure: Any = None) -> Any:
        with torch.no_grad():
            for group in self.param_groups:
                moved = [parameter for parameter in group["params"] if parameter.grad is not None]
                if group["shrink"] and moved:
                    torch._foreach_mul_(moved, 1 - group["lr"] * group["shrink"])
        return super().step(closure)


class Together(Optimizer):
    """Several optimizers, each over parameters of its own, as one: one list of groups, one state, one step."""

    def __init__(self, parts: Sequence[Optimizer]) -> None:
        self.parts = tuple(parts)
        super().__init__([group for part in self.parts for group in part.param_groups], {})
        for part in self.parts:
            part.state = self.state

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for part in self.parts:
            part.step()


def has_fused(device: torch.device) -> bool:
    """Whether torch has its fused optimizers for this device."""
    return device.type in ("cpu", "cuda")


def pack_optimizer(optimizer: Optimizer, names: Mapping[int, str]) -> State:
    """An optimizer's state by parameter name: ``name/exp_avg`` and the like, tensors and JSON values.

    Args:
        optimizer: any; tensors that share their memory are written once for each.
        names: the name of each parameter by ``id``.
    """
    packed: State = {}
    written: set[int] = set()
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if isinstance(value, Tensor):
                # bitsandbytes hands one table of levels to all parameters; safetensors refuses shared memory.
                value = value.clone() if own_rows(value)[0].data_ptr() in written else value
                written.add(own_rows(value)[0].data_ptr())
            packed[f"{names[id(parameter)]}/{key}"] = value
    return packed


def unpack_optimizer(optimizer: Optimizer, names: Mapping[int, str], state: State) -> None:
    """Give an optimizer back what :func:`pack_optimizer` took from it."""
    groups = {
        names[id(parameter)]: (parameter, group) for group in optimizer.param_groups for parameter in group["params"]
    }
    for path, value in state.items():
        name, _, key = path.rpartition("/")
        parameter, group = groups[name]
        if isinstance(value, Tensor):
            value = value.to("cpu" if key == "step" and not group.get("fused") else parameter.device)
        optimizer.state[parameter][key] = value


def _adamw(chosen: optimizers.Adamw | optimizers.Muon, groups: Groups, decay: float, device: torch.device) -> AdamW:
    betas = chosen.beta1, chosen.beta2
    return AdamW(groups, betas=betas, eps=chosen.epsilon, weight_decay=decay, fused=has_fused(device))


def _muon(chosen: optimizers.Muon, groups: Groups, decay: float, model: nn.Module, device: torch.device) -> Optimizer:
    """Muon over the hidden layers' matrices, AdamW over the rest; groups keep their rates and decays."""
    kinds = weight_kinds(model)
    hidden: Groups = []
    others: Groups = []
    for group in groups:
        matrices = [p for p in group["params"] if p.ndim == 2 and kinds.get(p) == "matrix"]
        apart = {id(parameter) for parameter in matrices}
        rest = [parameter for parameter in group["params"] if id(parameter) not in apart]
        hidden += [{**group, "params": matrices}] if matrices else []
        others += [{**group, "params": rest}] if rest else []
    if not hidden:
        raise UserError(
            "training.optimizer: muon is for the matrices of hidden layers, and none is trained here",
            'write optimizer = "adamw"',
        )
    muon = Muon(
        hidden, weight_decay=decay, momentum=chosen.momentum, nesterov=chosen.nesterov, ns_steps=chosen.iterations,
        adjust_lr_fn="match_rms_adamw",
    )  # fmt: skip
    return Together([muon, _adamw(chosen, others, decay, device)]) if others else muon


def _adamw_8bit(chosen: optimizers.Adamw8bit, groups: Groups, decay: float, device: torch.device) -> Optimizer:
    """bitsandbytes' AdamW, after one step on this device has shown that it can."""
    try:
        eight_bit: Any = import_module("bitsandbytes.optim")
    except ImportError as error:
        raise UserError(
            f"training.optimizer: adamw_8bit needs bitsandbytes ({error})", "pip install bitsandbytes"
        ) from error
    probe = nn.Parameter(torch.zeros(4096, device=device))
    probe.grad = torch.zeros_like(probe)
    try:
        eight_bit.AdamW8bit([probe], lr=0.0).step()
    except Exception as error:
        raise UserError(
            f"training.optimizer: the installed bitsandbytes cannot step on {device.type}: {one_line(error)}",
            'pip install --upgrade bitsandbytes, or write optimizer = "adamw"',
        ) from error
    betas = chosen.beta1, chosen.beta2
    made: Optimizer = eight_bit.AdamW8bit(groups, betas=betas, eps=chosen.epsilon, weight_decay=decay)
    return made
