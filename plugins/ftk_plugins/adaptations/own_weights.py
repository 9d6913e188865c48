"""What the adaptations share that train a model's own weights: choosing, a copy of the start, drift from it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ftk import UserError
from ftk.parts import Adaptation, Drift, Rewrite, State, own_rows, rewrite_weight, weight_kinds
from ftk_plugins.adaptations.named import remember_requires_grad, take_back
from ftk_plugins.adaptations.start_options import StartOptions


class OwnWeights(Adaptation):
    """Trains those of the model's own weights that :meth:`choose` gives; the others stay as they are, bit for bit.

    The starting values are copied in ``attach``, in the weights' own dtype and therefore exactly: taken
    later, a copy could hold weights that have already moved. A tied weight counts once, under its first name.
    """

    name: ClassVar[str]
    """The variant's, for messages."""

    def __init__(self, options: StartOptions) -> None:
        self._keep = options.start_copy
        self._trained: dict[str, nn.Parameter] = {}
        self._start: dict[str, Tensor] = {}
        self._end: dict[str, Tensor] = {}

    @abstractmethod
    def choose(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """The weights to train, by their first names; in any order, and not empty.

        Raises:
            UserError: there is nothing to train.
        """

    def attach(self, model: Any) -> nn.Module:
        """Set which weights require gradients and copy them.

        Raises:
            UserError: see :meth:`choose`; or a weight is quantized.
        """
        chosen = self.choose(model)
        for name, parameter in chosen.items():
            if not parameter.is_floating_point():
                raise UserError(
                    f"adaptation `{self.name}`: {name} is stored as {parameter.dtype}, which cannot be trained",
                    "Load the model without quantization, or freeze this weight.",
                )
        self._model = model
        self._restore_requires_grad = remember_requires_grad(model)
        model.requires_grad_(False)
        for parameter in chosen.values():
            parameter.requires_grad_(True)
        self._trained = chosen
        self._end = {}
        keep = self._keep != "none"
        self._start = {name: self._copy(parameter) for name, parameter in chosen.items()} if keep else {}
        module: nn.Module = model
        return module

    def param_groups(self, model: nn.Module, lr: float) -> list[dict[str, Any]]:
        """Matrices in one group; norms, biases and embeddings in another that never decays."""
        kinds = weight_kinds(model)
        groups: list[dict[str, Any]] = [{"params": [], "lr": lr}, {"params": [], "lr": lr, "weight_decay": 0.0}]
        for parameter in self._trained.values():
            groups[kinds[parameter] not in ("matrix", "head")]["params"].append(parameter)
        return [group for group in groups if group["params"]]

    def weights(self) -> Mapping[str, nn.Parameter]:
        """The weights that are trained, by name."""
        return self._trained

    def drift(self) -> Mapping[str, Drift]:
        self._need_start("drift")
        return {name: OwnDrift(parameter, self._start[name]) for name, parameter in self._trained.items()}

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Swap the starting values in by storage, not by copy, so that open graphs stay valid."""
        self._need_start("the reference model")
        if any(isinstance(parameter, DTensor) for parameter in self._trained.values()):
            with self._reference_on_shards():
                yield
            return
        kept = {name: parameter.data for name, parameter in self._trained.items()}
        try:
            for name, parameter in self._trained.items():
                parameter.data = self._start[name].to(parameter.device)
            yield
        finally:
            for name, parameter in self._trained.items():
                parameter.data = kept[name]

    @contextmanager
    def _reference_on_shards(self) -> Iterator[None]:
        """Copy the starting values into the shards; a graph reads its weights anew when it goes back through them."""
        kept = {name: own_rows(parameter)[0].clone() for name, parameter in self._trained.items()}
        try:
            self._fill(self._start)
            yield
        finally:
            self._fill(kept)

    @torch.no_grad()
    def _fill(self, values: Mapping[str, Tensor]) -> None:
        for name, parameter in self._trained.items():
            own_rows(parameter)[0].copy_(values[name])

    @torch.no_grad()
    def scale_each(self, share: Callable[[str], float]) -> None:
        self._keep_end("scaling")
        for name, parameter in self._trained.items():
            start, end, own = self._start[name], self._end[name], own_rows(parameter)[0]
            alpha = share(name)
            if alpha in (0, 1):
                own.copy_(end if alpha else start)
            else:
                precise = torch.promote_types(own.dtype, torch.float32)
                first, last = (value.to(own.device, precise) for value in (start, end))
                own.copy_(first + alpha * (last - first))

    @torch.no_grad()
    def rewrite(self, drifts: Rewrite | None) -> None:
        self._keep_end("setting weights")
        for name, parameter in self._trained.items():
            rewrite_weight(name, own_rows(parameter)[0], self._start[name], self._end[name], drifts)

    def _keep_end(self, what: str) -> None:
        self._need_start(what)
        if not self._end:
            self._end = {name: self._copy(parameter) for name, parameter in self._trained.items()}

    def export(self, directory: Path) -> None:
        """Nothing of its own: the merged model is the result."""

    def merge(self) -> Any:
        self._restore_requires_grad()
        self._start, self._end, self._trained = {}, {}, {}
        return self._model

    def state_dict(self) -> State:
        return {name: parameter.detach() for name, parameter in self._trained.items()}

    def load_state_dict(self, state: State) -> None:
        take_back(self._trained, state)
        self._end = {}

    def _copy(self, parameter: nn.Parameter) -> Tensor:
        target = torch.device("cpu") if self._keep == "cpu" else parameter.device
        return own_rows(parameter)[0].detach().to(target, copy=True)

    def _need_start(self, what: str) -> None:
        """Make sure that there is a copy, and that it is where the model went after ``attach``."""
        if self._keep == "none":
            raise UserError(
                f"adaptation `{self.name}` keeps no copy of the starting weights, and {what} needs it",
                'Set adaptation.start_copy to "device" or "cpu".',
            )
        if self._keep == "device":
            self._start = {name: start.to(self._trained[name].device) for name, start in self._start.items()}


class OwnDrift(Drift):
    """A trained weight minus its starting value; gradients pass unchanged. A scalar counts as one row."""

    def __init__(self, parameter: nn.Parameter, start: Tensor) -> None:
        self._parameter = parameter
        self._start = start

    @property
    def weight(self) -> Tensor:
        return self._parameter

    @property
    def shape(self) -> torch.Size:
        return self._parameter.shape or torch.Size((1,))

    def rows(self, start: int, stop: int) -> Tensor:
        own, first = own_rows(self._parameter)
        now = _as_rows(own.detach())[start - first : stop - first]
        began = _as_rows(self._start)[start - first : stop - first]
        return now.float() - began.to(now.device).float()

    def pull_back(self, start: int, stop: int, gradient: Tensor) -> None:
        if not self._parameter.requires_grad:
            return  # frozen for now; a gradient would have the optimizer move it
        if self._parameter.grad is None:
            self._parameter.grad = torch.zeros_like(self._parameter)
        own, first = own_rows(self._parameter.grad)
        _as_rows(own)[start - first : stop - first] += gradient


def _as_rows(tensor: Tensor) -> Tensor:
    return tensor if tensor.ndim else tensor.view(1)
