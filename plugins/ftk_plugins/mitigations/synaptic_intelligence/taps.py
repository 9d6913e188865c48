"""Hears the gradient with respect to weights that are computed, from what goes through their layers in training."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Partial, Shard

from ftk import RunFailed, UserError
from ftk.parts import Context, Drift, own_rows
from ftk_plugins.mitigations.ewc.sites import Outer, Part, Rule, Scatter, rule_for

WRAPPED = ".base_layer"
"""Where PEFT keeps the layer that it wraps; the wrapping one computes with the effective weight."""


class Taps:
    """Sums, over a step's passes, the gradient of the loss with respect to weights as the model computes with them.

    A layer that computes ``W x`` with the gradient G of its output has ``GᵀX`` as the gradient of W, whatever W is made
    of: under an adapter the layer is the wrapping one. No base weight needs to ask for a gradient. A pass counts once
    :meth:`count` is called between its forward and its backward pass.

    Args:
        ctx: the stage's; its model owns the layers.
        drifts: of the weights, by name.

    Raises:
        UserError: what a layer computes from a weight is not known.
    """

    def __init__(self, ctx: Context, drifts: Mapping[str, Drift]) -> None:
        # Taken now: a sharded weight is whole in its layer while a pass goes through it.
        self._weights = {name: (drift.weight, span(drift)) for name, drift in drifts.items()}
        self._heard: dict[str, Tensor] = {}
        self._counted = [False]
        self._hooks: list[Any] = []
        names = {id(drift.weight): name for name, drift in drifts.items()}
        layers: dict[nn.Module, dict[str, tuple[nn.Module, Rule]]] = {}
        for path, module in ctx.model.named_modules():
            for key, parameter in module._parameters.items():
                if (name := names.get(id(parameter))) is not None:
                    rule = rule_for(module, key)
                    if rule is None:
                        raise _unknown(path, module)
                    outer = ctx.model.get_submodule(path.removesuffix(WRAPPED)) if path.endswith(WRAPPED) else module
                    layers.setdefault(outer, {})[name] = (module, rule)
        for outer, rules in layers.items():
            self._hooks.append(outer.register_forward_hook(partial(self._after, rules)))

    def count(self) -> None:
        """The pass that has gone forward since the last call is trained on."""
        self._counted[0] = True
        self._counted = [False]

    def take(self, name: str, ctx: Context, scale: float) -> Tensor | None:
        """The gradient of a weight in this step, averaged over the processes; float32, from its first moving row on.

        Args:
            name: the weight's.
            ctx: the moment.
            scale: what the losses were multiplied by.
        """
        heard = self._heard.pop(name, None)
        if ctx.world_size > 1 and not isinstance(self._weights[name][0], DTensor):
            heard = self._empty(name) if heard is None else heard  # a process without rows has heard nothing
            torch.distributed.all_reduce(heard)
        return None if heard is None else heard.div_(scale * ctx.world_size)

    def remove(self) -> None:
        """Leave the model as it was."""
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._heard = [], {}

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _after(
        self, rules: Mapping[str, tuple[nn.Module, Rule]], outer: nn.Module, args: tuple[Any, ...], output: Any
    ) -> None:
        """Forward hook: keep the input, wait for the gradient of the output."""
        if not isinstance(output, Tensor) or not output.requires_grad or not torch.is_grad_enabled():
            return
        inputs, counted = args[0].detach(), self._counted
        version = inputs._version

        def hear(gradient: Tensor) -> None:
            if not counted[0]:
                return
            if inputs._version != version:
                raise RunFailed(
                    f"mitigation synaptic_intelligence: the input of a {type(outer).__name__} is changed in place"
                )
            with torch.no_grad():
                for name, (base, rule) in rules.items():
                    self._add(name, rule(base, inputs, gradient.detach()), gradient.dtype)

        output.register_hook(hear)  # type: ignore[no-untyped-call]

    def _add(self, name: str, part: Part, dtype: torch.dtype) -> None:
        weight, (first, _) = self._weights[name]
        if name not in self._heard:
            self._heard[name] = self._empty(name)
        total = self._heard[name]
        if isinstance(weight, DTensor):
            whole = torch.zeros(weight.shape, dtype=torch.float32, device=weight.device)
            _sum_into(whole, part, dtype)
            summed = DTensor.from_local(whole, weight.device_mesh, [Partial()], run_check=False)
            total.add_(own_rows(summed.redistribute(placements=[Shard(0)]))[0])
            return
        device = part.left.device if isinstance(part, Outer) else part.values.device
        some = None if len(total) == weight.shape[0] else first
        if total.device == device:
            _sum_into(total, part, dtype, some)
        else:  # the weight lies away from where its layer computes
            there = torch.zeros_like(total, device=device)
            _sum_into(there, part, dtype, some)
            total.add_(there.to(total.device))

    def _empty(self, name: str) -> Tensor:
        weight, (first, last) = self._weights[name]
        return torch.zeros((last - first, *weight.shape[1:]), dtype=torch.float32, device=weight.device)


def span(drift: Drift) -> tuple[int, int]:
    """The first row of a weight that can move on this process, and the row behind the last."""
    ranges = list(drift.chunks())
    return (ranges[0][0], ranges[-1][1]) if ranges else (0, 0)


def _sum_into(total: Tensor, part: Part, dtype: torch.dtype, some: int | None = None) -> None:
    """Add the gradient of all samples, whose products are made in ``dtype`` as training makes those of its weights.

    Where ``total`` has but some rows of the weight, they are those from ``some`` on.
    """
    rows, first = len(total), some or 0
    if isinstance(part, Outer):
        left = part.left[..., first : first + rows].flatten(0, 1)
        right = part.right.flatten(0, 1)
        with torch.autocast(total.device.type, enabled=False):
            if dtype == torch.float32:
                total.view(rows, -1).addmm_(left.mT, right)
            else:
                total.view(rows, -1).add_(left.to(dtype).mT @ right.to(dtype))
    elif isinstance(part, Scatter):
        indices, values = part.indices.flatten() - first, part.values.flatten(0, 1)
        if some is not None:
            there = (indices >= 0) & (indices < rows)
            indices, values = indices[there], values[there]
        total.index_add_(0, indices, values)
    else:
        total.add_(part.values.sum(0)[first : first + rows])


def _unknown(path: str, module: nn.Module) -> UserError:
    return UserError(
        f"mitigation synaptic_intelligence: {path} is a {type(module).__name__}, of whose weight under an adapter the "
        "gradient is not known",
        "leave it out of the adaptation's `targets`, train it whole by `modules_to_save`, or use `ewc`",
    )
