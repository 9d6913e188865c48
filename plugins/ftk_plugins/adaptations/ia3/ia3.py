"""(IA)³ through PEFT, with the drift of the weights and biases that it rescales."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from peft import IA3Config, IA3Model
from peft.tuners.tuners_utils import BaseTuner
from peft.utils.constants import (
    TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING,
    TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING,
)
from torch import Tensor, nn

from ftk import UserError
from ftk.parts import Drift
from ftk_plugins.adaptations.ia3.options import Ia3Options
from ftk_plugins.adaptations.injected import TRAINED, Injected
from ftk_plugins.adaptations.targets import matching


class Ia3(Injected):
    """Multiplies the outputs of a layer, or the inputs of a feed-forward one, by a vector that starts at one."""

    name = "ia3"

    def __init__(self, options: Ia3Options) -> None:
        super().__init__(options)
        self.options = options

    def targets(self, model: Any) -> Literal["all-linear"] | tuple[str, ...]:
        """As the options say.

        Raises:
            UserError: they are to be PEFT's for a type of model that PEFT does not know.
        """
        if self.options.targets == "auto":
            return _known(model, "targets", TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING)
        return self.options.targets

    def inject(self, model: nn.Module, targets: list[str]) -> BaseTuner:
        patterns, layers = self.options.feedforward, {name: name for name in targets}
        if patterns == "auto":
            known = _known(model, "feedforward", TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING)
            feedforward = [name for name in targets if name.endswith(known)]
        else:
            feedforward = list(matching(layers, patterns, "feedforward", "layer among the targets"))
        config = IA3Config(target_modules=targets, feedforward_modules=feedforward, fan_in_fan_out=self._transposed)
        return IA3Model(model, config, TRAINED)

    def param_groups(self, model: nn.Module, lr: float) -> list[dict[str, Any]]:
        """The factors never decay: they start at one, and decay would shrink the model's own weights."""
        adapters, *whole = super().param_groups(model, lr)
        return [{**adapters, "weight_decay": 0.0}, *whole]

    def drifts(self, layer: Any) -> Iterator[tuple[str, Drift]]:
        """Of the weight, and where outputs are rescaled of the bias."""
        base = layer.get_base_layer()
        of_columns = layer.is_feedforward != layer.fan_in_fan_out

        def weight(start: int, stop: int) -> Tensor:
            factors = layer.ia3_l[TRAINED].flatten()
            rescaled: Tensor = base.weight[start:stop].float() * (factors if of_columns else factors[start:stop, None])
            return rescaled

        def bias(start: int, stop: int) -> Tensor:
            rescaled: Tensor = base.bias[start:stop].float() * layer.ia3_l[TRAINED].flatten()[start:stop]
            return rescaled

        yield "weight", self.computed(layer, "weight", weight)
        if base.bias is not None and not layer.is_feedforward:
            yield "bias", self.computed(layer, "bias", bias)


def _known(model: Any, option: str, mapping: dict[str, list[str]]) -> tuple[str, ...]:
    kind = getattr(getattr(model, "config", None), "model_type", "")
    if kind not in mapping:
        raise UserError(
            f"adaptation.{option}: PEFT does not know which layers (IA)³ rescales in a model of type {kind!r}",
            f"Name them: {option} = [...].",
        )
    return tuple(mapping[kind])
