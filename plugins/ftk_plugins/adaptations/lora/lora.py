"""Low-rank adaptation through PEFT, with exact drift, reference, scaling and export."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, LoraModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)
from transformers.pytorch_utils import Conv1D

from ftk import RunFailed
from ftk.parts import Adaptation, Drift, State, own_rows
from ftk_plugins.adaptations.lora.drift import LowRankDrift
from ftk_plugins.adaptations.lora.options import LoraOptions
from ftk_plugins.adaptations.lora.targets import choose_targets
from ftk_plugins.adaptations.named import remember_requires_grad, take_back

TRAINED = "default"
"""PEFT's name for the adapter that learns."""

START = "start"
"""The frozen adapter that takes away what a nonzero initialisation adds; absent where B starts at zero."""


class Lora(Adaptation):
    """Adds ``s·B·A`` to each target; A and B are trained in float32, whatever the model's dtype.

    The base weights are never touched before :meth:`merge`. An initialisation from singular vectors starts
    with ``B₀A₀ ≠ 0``; it is balanced by a second, frozen adapter ``(−B₀, A₀)``, so that drift, reference,
    scaling and export stay exact in the stage's starting weights.

    The model keeps its class; its targets are wrapped in place. Random initialisations draw from torch's
    global generator.
    """

    def __init__(self, options: LoraOptions) -> None:
        self.options = options
        self._adapters = (TRAINED, START) if options.init in ("pissa", "milora") else (TRAINED,)
        self._layers: dict[str, Any] = {}
        self._trained_b: dict[str, Tensor] = {}
        self._pulls: dict[nn.Parameter, Tensor] = {}
        self._sharded = False

    def attach(self, model: Any) -> nn.Module:
        """Wrap the targets.

        Raises:
            UserError: see :func:`ftk_plugins.adaptations.lora.targets.choose_targets`.
        """
        targets = choose_targets(model, self.options.targets)
        self._transposed = any(isinstance(layer, Conv1D) for layer in targets.values())
        self._restore_requires_grad = remember_requires_grad(model)
        self._tuner: Any = LoraModel(model, self._config(sorted(targets), dropout=self.options.dropout), TRAINED)
        if START in self._adapters:
            self._tuner.peft_config[START] = self._config(sorted(targets))
            self._tuner.inject_adapter(model, START)
            self._tuner.set_adapter(list(self._adapters))
        wrapped = {name for name, module in model.named_modules() if isinstance(module, LoraLayer)}
        if wrapped != set(targets):
            raise RunFailed(f"PEFT wrapped other layers than chosen: {', '.join(sorted(wrapped ^ set(targets)))}")
        self._layers = {name: model.get_submodule(name) for name in targets}
        self._sharded = any(isinstance(layer.get_base_layer().weight, DTensor) for layer in self._layers.values())
        self._trained_b = {}
        for layer in self._layers.values():
            layer.train(layer.get_base_layer().training)
            layer.lora_A.float()
            layer.lora_B.float()
            if START in self._adapters:
                self._start_from_singular_vectors(layer)
        self._train_only_trained()
        module: nn.Module = model
        return module

    def param_groups(self, model: nn.Module, lr: float) -> list[dict[str, Any]]:
        a = [layer.lora_A[TRAINED].weight for layer in self._layers.values()]
        b = [layer.lora_B[TRAINED].weight for layer in self._layers.values()]
        if self.options.b_lr_ratio == 1:
            return [{"params": [*a, *b], "lr": lr}]
        return [{"params": a, "lr": lr}, {"params": b, "lr": lr * self.options.b_lr_ratio}]

    def drift(self) -> Mapping[str, Drift]:
        pulls = self._pulls if self._sharded else None
        return {f"{name}.weight": LowRankDrift(layer, pulls) for name, layer in self._layers.items()}

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

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Turn all adapters off: the base weights are the starting model's own."""
        layers = [layer for layer in self._layers.values() if not layer.disable_adapters]
        try:
            for layer in layers:
                layer.enable_adapters(False)
            yield
        finally:
            for layer in layers:
                layer.enable_adapters(True)
            self._train_only_trained()

    @torch.no_grad()
    def scale(self, alpha: float) -> None:
        """Scale B of every adapter: B is linear in the drift, and the trained B is kept for later calls."""
        matrices = {key: tensor for key, tensor in self._tensors().items() if ".lora_B" in key}
        if not self._trained_b:
            self._trained_b = {key: tensor.clone() for key, tensor in matrices.items()}
        for key, tensor in matrices.items():
            tensor.copy_(alpha * self._trained_b[key])

    def export(self, directory: Path) -> None:
        """Write ``adapter/``: a plain PEFT adapter; loaded on the starting model it gives this one."""
        folder = directory / "adapter"
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {}
        for name, layer in self._layers.items():
            a = torch.cat([layer.lora_A[adapter].weight.detach() for adapter in self._adapters])
            b = torch.cat([layer.lora_B[adapter].weight.detach() for adapter in self._adapters], dim=1)
            tensors[f"base_model.model.{name}.lora_A.weight"] = a.cpu().contiguous()
            tensors[f"base_model.model.{name}.lora_B.weight"] = b.cpu().contiguous()
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        model = self._tuner.model
        config = self._config(self._tuner.peft_config[TRAINED].target_modules, adapters=len(self._adapters))
        config.target_modules = sorted(config.target_modules)
        config.inference_mode = True
        config.task_type = _task_type(model)
        config.base_model_name_or_path = getattr(model, "name_or_path", "") or None
        plain = _class_of(model)
        kind = {"base_model_class": plain.__name__, "parent_library": plain.__module__}
        config.save_pretrained(str(folder), auto_mapping_dict=None if config.task_type else kind)

    @torch.no_grad()
    def merge(self) -> Any:
        for drift in self.drift().values():
            for start, stop in drift.chunks():
                own, first = own_rows(drift.weight)
                rows = own[start - first : stop - first]
                rows.copy_(rows.float() + drift.rows(start, stop))
        model = self._tuner.unload()
        self._restore_requires_grad()
        self._layers, self._trained_b = {}, {}
        return model

    def state_dict(self) -> State:
        return dict(self._tensors())

    def load_state_dict(self, state: State) -> None:
        take_back(self._tensors(), state)
        self._trained_b = {}

    def _tensors(self) -> dict[str, Tensor]:
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

    def _train_only_trained(self) -> None:
        for layer in self._layers.values():
            for part in (layer.lora_A, layer.lora_B):
                for adapter, linear in part.items():
                    linear.requires_grad_(adapter == TRAINED)

    @torch.no_grad()
    def _start_from_singular_vectors(self, layer: Any) -> None:
        """``s·B₀A₀`` = the part of the weight with the largest (or smallest) ``rank`` singular values.

        PiSSA: Meng et al. 2024, https://arxiv.org/abs/2404.02948. MiLoRA: Wang et al. 2024,
        https://arxiv.org/abs/2406.09044.
        """
        weight = layer.get_base_layer().weight
        weight = (weight.full_tensor() if isinstance(weight, DTensor) else weight).float()
        u, values, vh = torch.linalg.svd(weight.mT if layer.fan_in_fan_out else weight, full_matrices=False)
        some = slice(0, self.options.rank) if self.options.init == "pissa" else slice(-self.options.rank, None)
        root = (values[some] / layer.scaling[TRAINED]).sqrt()
        for adapter, sign in ((TRAINED, 1), (START, -1)):
            a, b = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight
            a.zero_()[: len(root)] = root[:, None] * vh[some]
            b.zero_()[:, : len(root)] = sign * u[:, some] * root


def _task_type(model: Any) -> str | None:
    """PEFT's name of the model's task, where loading it as such adds nothing; None elsewhere."""
    name = _class_of(model).__name__
    if name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values():
        return "CAUSAL_LM"
    return "SEQ_2_SEQ_LM" if name in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES.values() else None


def _class_of(model: nn.Module) -> type[nn.Module]:
    """The model's class, under the one that sharding puts over it."""
    return next(
        kind for kind in type(model).__mro__ if issubclass(kind, nn.Module) and not issubclass(kind, FSDPModule)
    )
