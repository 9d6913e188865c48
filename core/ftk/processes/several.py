"""Heads that are trained beside the one that an adaptation acts on: whole, and otherwise as if they were its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ftk.parts import Adaptation, ComputedDrift, Context, Drift, Gradients, Rewrite, State, rewrite_weight

PREFIX = "beside/"
"""Before the names of their weights in a state."""


class SeveralHeads(Adaptation):
    """An adaptation of the live model, with all weights that only the heads beside it have, which are trained whole.

    Args:
        adaptation: acts on the body and the live head.
        beside: these weights, by the names under which they are known beyond the stage.
    """

    def __init__(self, adaptation: Adaptation, beside: Mapping[str, nn.Parameter]) -> None:
        self.adaptation = adaptation
        self._beside = {name: p for name, p in beside.items() if p.is_floating_point()}

    def attach(self, model: Any) -> nn.Module:
        for parameter in self._beside.values():
            parameter.requires_grad_(True)
        self._start = self._copies()
        self._end: dict[str, Tensor] = {}
        return self.adaptation.attach(model)

    def param_groups(self, model: nn.Module, lr: float) -> list[dict[str, Any]]:
        """Those of the adaptation, then the heads' matrices, and their other weights, which never decay."""
        weights = list(self._beside.values())
        matrices, others = ([p for p in weights if (p.ndim > 1) == is_matrix] for is_matrix in (True, False))
        groups = [{"params": matrices, "lr": lr}, {"params": others, "lr": lr, "weight_decay": 0.0}]
        return [*self.adaptation.param_groups(model, lr), *(group for group in groups if group["params"])]

    def before_step(self, ctx: Context) -> bool:
        return self.adaptation.before_step(ctx)

    def edit_gradients(self, gradients: Gradients, ctx: Context) -> None:
        self.adaptation.edit_gradients(gradients, ctx)

    def after_step(self, ctx: Context) -> None:
        self.adaptation.after_step(ctx)

    def drift(self) -> Mapping[str, Drift]:
        def drift_of(name: str, parameter: nn.Parameter) -> Drift:
            start = self._start[name].to(parameter.device)
            return ComputedDrift(parameter, lambda i, j: parameter[i:j].float(), [parameter], start=start)

        return {**self.adaptation.drift(), **{name: drift_of(name, p) for name, p in self._beside.items()}}

    def settle(self) -> None:
        self.adaptation.settle()

    @contextmanager
    def reference(self) -> Iterator[None]:
        kept = {name: parameter.data for name, parameter in self._beside.items()}
        with self.adaptation.reference():
            try:
                for name, parameter in self._beside.items():
                    parameter.data = self._start[name].to(parameter.device)
                yield
            finally:
                for name, parameter in self._beside.items():
                    parameter.data = kept[name]

    def scale(self, alpha: float) -> None:
        self.adaptation.scale(alpha)
        self._scale_beside(lambda name: alpha)

    def scale_each(self, share: Callable[[str], float]) -> None:
        self.adaptation.scale_each(share)
        self._scale_beside(share)

    @torch.no_grad()
    def _scale_beside(self, share: Callable[[str], float]) -> None:
        self._end = self._end or self._copies()
        for name, parameter in self._beside.items():
            alpha, start, end = share(name), self._start[name].to(parameter.device), self._end[name]
            parameter.copy_(end if alpha == 1 else start if alpha == 0 else start + alpha * (end - start))

    @torch.no_grad()
    def rewrite(self, drifts: Rewrite | None) -> None:
        self.adaptation.rewrite(drifts)
        self._end = self._end or self._copies()
        for name, parameter in self._beside.items():
            rewrite_weight(name, parameter, self._start[name], self._end[name], drifts)

    def export(self, directory: Path) -> str | None:
        return self.adaptation.export(directory)

    def merge(self) -> Any:
        for parameter in self._beside.values():
            parameter.requires_grad_(False)
        return self.adaptation.merge()

    def state_dict(self) -> State:
        return {
            **self.adaptation.state_dict(),
            **{PREFIX + name: parameter.detach() for name, parameter in self._beside.items()},
        }

    @torch.no_grad()
    def load_state_dict(self, state: State) -> None:
        own = {key.removeprefix(PREFIX): value for key, value in state.items() if key.startswith(PREFIX)}
        if own.keys() != self._beside.keys():
            raise ValueError(f"the heads have {', '.join(self._beside)}, the state {', '.join(own)}")
        self.adaptation.load_state_dict({key: value for key, value in state.items() if not key.startswith(PREFIX)})
        for name, parameter in self._beside.items():
            parameter.copy_(own[name])
        self._end = {}

    def _copies(self) -> dict[str, Tensor]:
        return {name: parameter.detach().clone() for name, parameter in self._beside.items()}
