"""Low-rank adaptation through PEFT, with exact drift, reference, scaling and export."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, LoraModel
from peft.tuners.tuners_utils import BaseTuner
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ftk.parts import Drift, State
from ftk_plugins.adaptations.injected import TRAINED, Injected
from ftk_plugins.adaptations.lora.drift import LowRankDrift
from ftk_plugins.adaptations.lora.options import LoraOptions
from ftk_plugins.adaptations.quantized import plain_weight

START = "start"
"""The frozen adapter that takes away what a nonzero initialisation adds; absent where B starts at zero."""


class Lora(Injected):
    """Adds ``s·B·A`` to each target.

    An initialisation from singular vectors starts with ``B₀A₀ ≠ 0``; it is balanced by a second, frozen adapter
    ``(−B₀, A₀)``, so that drift, reference, scaling and export stay exact in the stage's starting weights.
    """

    name = "lora"

    def __init__(self, options: LoraOptions) -> None:
        super().__init__(options, new_tokens=options.new_tokens)
        self.options = options
        self._adapters = (TRAINED, START) if options.init in ("pissa", "milora") else (TRAINED,)
        self._trained_b: dict[str, Tensor] = {}
        self._pulls: dict[nn.Parameter, Tensor] = {}
        self._sharded = False

    def attach(self, model: Any) -> nn.Module:
        module = super().attach(model)
        self._trained_b = {}
        self._sharded = any(isinstance(layer.get_base_layer().weight, DTensor) for layer in self._layers.values())
        if START in self._adapters:
            for layer in self._layers.values():
                self._start_from_singular_vectors(layer)
        return module

    def inject(self, model: nn.Module, targets: list[str]) -> BaseTuner:
        tuner: BaseTuner = LoraModel(model, self._config(targets, dropout=self.options.dropout), TRAINED)
        if START in self._adapters:
            tuner.peft_config[START] = self._config(targets)
            tuner.inject_adapter(model, START)
            tuner.set_adapter(list(self._adapters))
            for name, parameter in model.named_parameters():
                if f".{START}." in name:
                    parameter.requires_grad_(False)
        return tuner

    def param_groups(self, model: nn.Module, lr: float) -> list[dict[str, Any]]:
        """One group, or A and B apart where their rates differ; then those of what is trained beside them."""
        adapters, *beside = super().param_groups(model, lr)
        if self.options.b_lr_ratio == 1:
            return [adapters, *beside]
        a = [layer.lora_A[TRAINED].weight for layer in self._layers.values()]
        b = [layer.lora_B[TRAINED].weight for layer in self._layers.values()]
        return [{"params": a, "lr": lr}, {"params": b, "lr": lr * self.options.b_lr_ratio}, *beside]

    def drifts(self, layer: Any) -> Iterator[tuple[str, Drift]]:
        yield "weight", LowRankDrift(layer, self._pulls if self._sharded else None)

    @torch.no_grad()
    def settle(self) -> None:
        """A and B are whole in every process: each adds what all of them pulled, in one exchange."""
        trained = [part[TRAINED].weight for la in self._layers.values() for part in (la.lora_A, la.lora_B)]
        flat = torch.cat([self._pulls.get(p, torch.zeros_like(p)).flatten() for p in trained])
        self._pulls.clear()
        torch.distributed.all_reduce(flat)
        sizes = [parameter.numel() for parameter in trained]
        for parameter, pull in zip(trained, torch.split(flat, sizes), strict=True):
            pull = pull.view_as(parameter)
            parameter.grad = pull.clone() if parameter.grad is None else parameter.grad.add_(pull)

    @torch.no_grad()
    def scale_each(self, share: Callable[[str], float]) -> None:
        """Scale B of every adapter: B is linear in the drift, and the trained B is kept for later calls."""
        matrices = {key: tensor for key, tensor in self.tensors().items() if ".lora_B" in key}
        if not self._trained_b:
            self._trained_b = {key: tensor.clone() for key, tensor in matrices.items()}
        for key, tensor in matrices.items():
            tensor.copy_(share(f"{key.partition('.lora_B')[0]}.weight") * self._trained_b[key])
        for part in self._beside:
            part.scale_each(share)

    def export(self, directory: Path) -> str | None:
        """Write ``adapter/``, the adapters joined into one; loaded on the starting model it gives this one."""
        tensors = {}
        for name, layer in self._layers.items():
            a = torch.cat([layer.lora_A[adapter].weight.detach() for adapter in self._adapters])
            b = torch.cat([layer.lora_B[adapter].weight.detach() for adapter in self._adapters], dim=1)
            tensors[f"base_model.model.{name}.lora_A.weight"] = a
            tensors[f"base_model.model.{name}.lora_B.weight"] = b
        config = self._config(self._tuner.peft_config[TRAINED].target_modules, adapters=len(self._adapters))
        self.write(directory, config, tensors)
        return None

    def load_state_dict(self, state: State) -> None:
        super().load_state_dict(state)
        self._trained_b = {}

    def tensors(self) -> dict[str, Tensor]:
        """All matrices: ``<layer>.lora_A`` and ``.lora_B``, with ``.start`` behind the frozen adapter's."""
        tensors = {}
        for name, layer in self._layers.items():
            for adapter in self._adapters:
                suffix = "" if adapter == TRAINED else f".{adapter}"
                tensors[f"{name}.lora_A{suffix}"] = layer.lora_A[adapter].weight.detach()
                tensors[f"{name}.lora_B{suffix}"] = layer.lora_B[adapter].weight.detach()
        return tensors

    def _config(self, targets: Any, *, adapters: int = 1, dropout: float = 0.0) -> LoraConfig:
        """PEFT's settings for ``adapters`` of this kind joined into one of their summed rank, same scale."""
        rank, rslora = self.options.rank * adapters, self.options.rslora
        return LoraConfig(
            r=rank,
            lora_alpha=self.options.alpha * (math.sqrt(adapters) if rslora else adapters),
            use_rslora=rslora,
            lora_dropout=dropout,
            target_modules=targets,
            fan_in_fan_out=self._transposed,
            init_lora_weights="gaussian" if self.options.init == "gaussian" else True,
        )

    @torch.no_grad()
    def _start_from_singular_vectors(self, layer: Any) -> None:
        """``s·B₀A₀`` = the part of the weight with the largest (or smallest) ``rank`` singular values.

        PiSSA: Meng et al. 2024, https://arxiv.org/abs/2404.02948. MiLoRA: Wang et al. 2024,
        https://arxiv.org/abs/2406.09044.
        """
        weight = plain_weight(layer.get_base_layer())
        weight = (weight.full_tensor() if isinstance(weight, DTensor) else weight).float()
        u, values, vh = torch.linalg.svd(weight.mT if layer.fan_in_fan_out else weight, full_matrices=False)
        some = slice(0, self.options.rank) if self.options.init == "pissa" else slice(-self.options.rank, None)
        root = (values[some] / layer.scaling[TRAINED]).sqrt()
        for adapter, sign in ((TRAINED, 1), (START, -1)):
            a, b = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight
            a.zero_()[: len(root)] = root[:, None] * vh[some]
            b.zero_()[:, : len(root)] = sign * u[:, some] * root
