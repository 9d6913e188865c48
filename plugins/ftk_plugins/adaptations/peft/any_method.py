"""Any method of PEFT that changes weights: what a layer computes with is asked of the layer."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import Tensor, nn

from ftk import UserError
from ftk.parts import Drift
from ftk_plugins.adaptations.injected import TRAINED, Injected
from ftk_plugins.adaptations.peft.configs import check_config, find_method
from ftk_plugins.adaptations.peft.options import PeftOptions
from ftk_plugins.adaptations.probing import (
    ROWS,
    Findings,
    added_weight,
    answer,
    probed_bias,
    probed_weight,
    try_layer,
    width,
)

STARTS = {"fourierft": {"init_weights": True}, "c3a": {"init_weights": True}}
"""What a method must be told to start at the model's own weights, where that is not PEFT's default."""


class AnyMethod(Injected):
    """The effective weight of a wrapped layer is what its answers to unit vectors show, whatever the method is.

    Each layer is tried once when the stage is set up: it must compute what the plain layer did, be affine in its input,
    and add no bias where there was none. Where PEFT's own ``get_delta_weight`` gives the same weight with the same
    derivatives, that is used, which costs less.
    """

    name = "peft"

    def __init__(self, options: PeftOptions) -> None:
        super().__init__(options)
        self.options = options
        self._tuner_class, self._config_class = find_method(options.method)
        check_config(options.method, self._config_class, options.config)
        self._findings: dict[int, Findings] = {}

    def inject(self, model: nn.Module, targets: list[str]) -> BaseTuner:
        """By the method's own tuner.

        Raises:
            UserError: PEFT refuses the options, or the model under them.
        """
        real = all(type(parameter) is nn.Parameter and not parameter.is_meta for parameter in model.parameters())
        self._plain = {name: _answers(model.get_submodule(name)) for name in targets} if real else {}
        told = {**STARTS.get(self.options.method, {}), **self.options.config, "target_modules": targets}
        if "fan_in_fan_out" in self._config_class.__dataclass_fields__:
            told["fan_in_fan_out"] = self._transposed
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tuner = self._tuner_class(model, self._config_class(**told), TRAINED)
        except (ValueError, TypeError, ImportError, NotImplementedError) as error:
            if isinstance(error, NotImplementedError) and not real:
                raise  # shapes alone do not go through everything that weights do
            raise UserError(
                f"adaptation `peft`: PEFT refuses {self.options.method} with these options: {error}",
                f"See `config` and `targets`; the options are those of peft.{self._config_class.__name__}.",
            ) from error
        for name in targets:
            layer = model.get_submodule(name)
            if not isinstance(layer, BaseTunerLayer):
                raise UserError(
                    f"adaptation `peft`: {self.options.method} takes no layers of the type {type(layer).__name__}, as "
                    f"{name}",
                    "Leave it out of `targets`, or use another method.",
                )
        return tuner

    def attach(self, model: Any) -> nn.Module:
        """Wrap the targets and try each.

        Raises:
            UserError: as :class:`Injected` says, or PEFT refuses, or a layer does not do what the class says.
        """
        module = super().attach(model)
        for name, expected in self._plain.items():
            self._findings[id(self._layers[name])] = self._tried(name, *expected)
        self._plain.clear()
        return module

    def param_groups(self, model: nn.Module, lr: float) -> list[dict[str, Any]]:
        """Vectors never decay: many methods have factors among them that start at one."""
        return self.vectors_apart(model, lr)

    def drifts(self, layer: Any) -> Iterator[tuple[str, Drift]]:
        """Each weight whole, one at a time; the bias first, for in some methods it depends on the base weight."""
        untried = Findings(affine=True, moves_weight=True, moves_bias=False, adds=False)
        findings = self._findings.get(id(layer), untried)

        def rows(whole: Any, start: int, stop: int) -> Tensor:
            some: Tensor = whole()[start:stop]
            return some

        if findings.moves_bias:
            yield "bias", self.computed(layer, "bias", partial(rows, partial(probed_bias, layer)), by_rows=False)
        if findings.moves_weight:
            weight = partial(added_weight, layer, TRAINED) if findings.adds else partial(probed_weight, layer)
            yield "weight", self.computed(layer, "weight", partial(rows, weight), by_rows=False)

    def _tried(self, name: str, inputs: Tensor, outputs: Tensor) -> Findings:
        layer, method = self._layers[name], self.options.method
        with torch.no_grad():
            distance = float((answer(layer, inputs) - outputs).abs().max())
        if not distance <= 1e-4 * float(outputs.abs().max()):
            raise UserError(
                f"adaptation `peft`: {method} starts away from the model's own weights, at {name} by {distance:.2g}",
                "Give it the `config` with which it starts at them, or use another method.",
            )
        trained = {id(parameter) for parameter in self._trained}
        findings = try_layer(layer, TRAINED, [p for p in layer.parameters() if id(p) in trained])
        if not findings.affine:
            raise UserError(
                f"adaptation `peft`: {method} does not compute with one weight for all inputs, as at {name}; it "
                "neither merges nor has a drift",
                "Use another method.",
            )
        if findings.moves_bias and layer.get_base_layer().bias is None:
            raise UserError(
                f"adaptation `peft`: {method} learns a bias at {name}, which has none to merge it into",
                "Use another method, or layers with a bias in `targets`.",
            )
        return findings


def _answers(layer: Any) -> tuple[Tensor, Tensor]:
    """Random inputs of a plain layer, and what it computes from them in float32."""
    inputs = torch.randn(ROWS, width(layer), generator=torch.Generator().manual_seed(0)).to(layer.weight.device)
    with torch.no_grad():
        return inputs, answer(layer, inputs)
