"""Weight-decomposed low-rank adaptation through PEFT, with the drift of the weight that it composes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from peft import LoraConfig, LoraModel
from peft.tuners.tuners_utils import BaseTuner
from torch import Tensor, nn

from ftk import UserError
from ftk.parts import Drift
from ftk_plugins.adaptations.dora.options import DoraOptions
from ftk_plugins.adaptations.injected import TRAINED, Injected
from ftk_plugins.adaptations.quantized import is_in_8_bits


class Dora(Injected):
    """Each row of a weight is ``m · V / ‖V‖`` with ``V = W₀ + s·B·A``; m, A and B are trained.

    Training takes ``‖V‖`` for a constant, as the paper advises (section 4.3) and PEFT does. The drift does not: what
    pulls at the weights needs the derivative of the weight that there is.
    """

    name = "dora"

    def __init__(self, options: DoraOptions) -> None:
        super().__init__(options, new_tokens=options.new_tokens)
        self.options = options

    def inject(self, model: nn.Module, targets: list[str]) -> BaseTuner:
        """By PEFT's layers for LoRA.

        Raises:
            UserError: the weights are held in 8 bits.
        """
        if any(is_in_8_bits(model.get_submodule(name)) for name in targets):
            raise UserError(
                "adaptation `dora` reads the base weights in every step, and bitsandbytes loses those of 8 bits then",
                'Write quantization = "nf4" in [model], or use `lora`.',
            )
        config = LoraConfig(
            r=self.options.rank,
            lora_alpha=self.options.alpha,
            use_rslora=self.options.rslora,
            lora_dropout=self.options.dropout,
            target_modules=targets,
            fan_in_fan_out=self._transposed,
            use_dora=True,
        )
        return LoraModel(model, config, TRAINED)

    def param_groups(self, model: nn.Module, lr: float) -> list[dict[str, Any]]:
        """Magnitudes never decay: a weight's length is not what decay towards zero is meant for."""
        return self.vectors_apart(model, lr)

    def drifts(self, layer: Any) -> Iterator[tuple[str, Drift]]:
        """By rows where a row is an output's. A ``Conv1D`` stores inputs as rows, and a length is of a whole column."""

        def effective(start: int, stop: int) -> Tensor:
            weight = layer.get_base_layer().weight
            a, b = layer.lora_A[TRAINED].weight, layer.lora_B[TRAINED].weight * layer.scaling[TRAINED]
            lengths = layer.lora_magnitude_vector[TRAINED].weight
            if layer.fan_in_fan_out:
                direction = weight.float() + (b @ a).mT
                whole: Tensor = direction * (lengths / torch.linalg.vector_norm(direction, dim=0))
                return whole[start:stop]
            direction = weight[start:stop].float() + b[start:stop] @ a
            rows: Tensor = direction * (lengths[start:stop] / torch.linalg.vector_norm(direction, dim=1))[:, None]
            return rows

        yield "weight", self.computed(layer, "weight", effective, by_rows=not layer.fan_in_fan_out)
