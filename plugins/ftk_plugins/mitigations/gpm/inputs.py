"""What layers are given on the rows of a task: second moments of their inputs, and the rows of tables they look up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ftk.parts import Context
from ftk_plugins.mitigations.layers import is_table, kind_of, owners

ELEMENTS = 1 << 27
"""Elements of second moments that are held at a time, 1 GiB; one of a wider layer all the same."""


class Inputs:
    """A context in which the layers of a model that have one of these weights add up what they are given.

    Layers that are given the very same tensor, as the projections of an attention block, are one *site*: what they are
    given is added up once. Which are, is seen in the first pass that reaches them: a router may pass a layer over.

    Args:
        model: what the batches go through.
        weights: the weights by name, found in the model by identity.
        known: what is remembered of a weight already; layers that differ in it are no one site.

    Attributes:
        moments: ``Σ x xᵀ`` of the inputs of the sites that are listened to, ``(inputs, inputs) float64``, by the first
            of a site's weights; see :meth:`groups`.
        sites: the site of each weight that multiplies inputs.
        seen: of each table that rows are looked up in, which ones were: ``(rows,) bool``.
        silent: the model's weights of which nothing here knows what they are given.
        listens: whether a pass is taken in.
    """

    def __init__(self, model: nn.Module, weights: Mapping[str, Tensor], known: Mapping[str, str]) -> None:
        self.moments: dict[str, Tensor] = {}
        self.sites: dict[str, str] = {}
        self.seen: dict[str, Tensor] = {}
        self.listens = True
        own = {id(parameter) for parameter in model.parameters()}
        self._modules = list(owners(model, weights))
        self.silent = {n for n, weight in weights.items() if id(weight) in own} - {name for _, name in self._modules}
        self._known = known
        self._stack = ExitStack()
        self._first: dict[int, tuple[Tensor, dict[str, str]]] | None = {}
        self._widths: dict[str, tuple[int, Tensor]] = {}

    def __enter__(self) -> Inputs:
        for module, name in self._modules:
            hear = self._looked_up if is_table(module) else self._given
            self._stack.callback(module.register_forward_pre_hook(partial(hear, name)).remove)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def passed(self) -> bool:
        """A pass has ended: whether every layer has been given something by now, so that all sites are known."""
        self._first = {}
        return all(is_table(module) or name in self.sites for module, name in self._modules)

    def groups(self, elements: int = ELEMENTS) -> Iterator[None]:
        """Once sites are known: those whose moments are added up from here on, as many as have room."""
        self._first = None
        waiting = dict(self._widths)
        while waiting:
            self.moments, room = {}, elements
            for name, (width, example) in list(waiting.items()):
                if not self.moments or width**2 <= room:
                    self.moments[name] = torch.zeros(width, width, dtype=_exact(example), device=example.device)
                    room -= width**2
                    del waiting[name]
            yield
        self.moments = {}

    def add_up(self, ctx: Context) -> None:
        """Add what all processes have heard."""
        if ctx.world_size == 1:
            return
        for moment in self.moments.values():
            torch.distributed.all_reduce(moment)
        for name, seen in self.seen.items():
            told = seen.to(torch.uint8)
            torch.distributed.all_reduce(told, torch.distributed.ReduceOp.MAX)
            self.seen[name] = told.bool()

    def _given(self, name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        """Forward pre-hook of a layer that multiplies its inputs."""
        if self._first is not None and name not in self.sites:
            _, sites = self._first.setdefault(id(args[0]), (args[0], {}))  # kept, so that its number is no other's
            self.sites[name] = sites.setdefault(f"{kind_of(module) == 'conv'} {self._known.get(name)}", name)
            if self.sites[name] == name:
                width = _flat_inputs(module, args[0][:1]).shape[1]
                self._widths[name] = width, args[0].new_empty(0)
        moment = self.moments.get(name)
        if moment is None or not self.listens:
            return
        rows = _flat_inputs(module, args[0]).to(moment.dtype)
        moment.addmm_(rows.mT, rows)

    def _looked_up(self, name: str, module: Any, args: tuple[Any, ...]) -> None:
        """Forward pre-hook of an embedding."""
        places = args[0].flatten()
        fresh = torch.zeros(module.num_embeddings, dtype=torch.bool, device=places.device)
        self.seen.setdefault(name, fresh)[places] = True


def _exact(inputs: Tensor) -> torch.dtype:
    """Squares of what is small beside what is large are lost in float32; one kind of device has nothing else."""
    return torch.float32 if inputs.device.type == "mps" else torch.float64


def _flat_inputs(module: Any, inputs: Tensor) -> Tensor:
    """What each output is made of, ``(positions, inputs) float32``; of a convolution, patches."""
    if kind_of(module) == "conv":
        patches = F.unfold(inputs.float(), module.kernel_size, module.dilation, module.padding, module.stride)
        return patches.mT.reshape(-1, patches.shape[1])
    return inputs.float().reshape(-1, inputs.shape[-1])
