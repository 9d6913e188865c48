"""What the adaptations share that put PEFT's layers around a model's linear layers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from peft import PeftConfig, get_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)
from transformers.pytorch_utils import Conv1D

from ftk import RunFailed
from ftk.parts import Adaptation, ComputedDrift, Drift, State, own_rows
from ftk_plugins.adaptations.full.full import FullTuning
from ftk_plugins.adaptations.full.options import FullOptions
from ftk_plugins.adaptations.named import remember_requires_grad, take_back
from ftk_plugins.adaptations.new_rows import NewRows
from ftk_plugins.adaptations.quantized import make_plain
from ftk_plugins.adaptations.target_options import TargetOptions
from ftk_plugins.adaptations.targets import choose_targets, choose_whole

TRAINED = "default"
"""PEFT's name for the adapter that learns."""

Effective = Callable[[int, int], Tensor]
"""Rows of the weight with which a layer computes, in float32 and with a graph: see :class:`ComputedDrift`."""


class Injected(Adaptation):
    """The model keeps its class; its targets are wrapped in place, and its own weights never touched before ``merge``.

    Adapters are trained in float32, whatever the model's dtype. Random initialisations draw from torch's global
    generator. The output of a wrapped layer is an affine function of its input, so that mixing it with the base layer's
    output is mixing the weights: :meth:`scale` does that, for any method and without a copy of a weight.
    """

    name: ClassVar[str]
    """The variant's, for messages."""

    def __init__(self, options: TargetOptions, *, new_tokens: bool = False) -> None:
        self.modules_to_save, self.new_tokens = options.modules_to_save, new_tokens
        self._targets = options.targets
        self._layers: dict[str, Any] = {}
        self._trained: list[nn.Parameter] = []
        self._beside: list[FullTuning | NewRows] = []
        self._shares: dict[str, float] = {}
        self._blends: list[Any] = []

    def targets(self, model: Any) -> Literal["all-linear"] | tuple[str, ...]:
        """Which layers to wrap, as a recipe says it."""
        return self._targets

    @abstractmethod
    def inject(self, model: nn.Module, targets: list[str]) -> BaseTuner:
        """Put PEFT's layers around ``targets`` by one of its tuners, with the adapter :data:`TRAINED`."""

    @abstractmethod
    def drifts(self, layer: Any) -> Iterator[tuple[str, Drift]]:
        """The drift of each parameter of a wrapped layer's base that the adapter moves, by its name there."""

    def computed(self, layer: Any, key: str, effective: Effective, *, by_rows: bool = True) -> Drift:
        """The drift of the base's parameter ``key``, with the share that :meth:`scale` has set.

        Args:
            layer: PEFT's.
            key: ``weight`` or ``bias``.
            effective: the rows with which the layer computes, whatever :meth:`scale` did.
            by_rows: see :class:`ComputedDrift`.
        """
        weight, trained = layer.get_base_layer().get_parameter(key), {id(parameter) for parameter in self._trained}
        share = next(
            (self._shares[name] for name, it in self._layers.items() if it is layer and name in self._shares), 1.0
        )
        rows = effective if share == 1 else partial(_mixed, weight, effective, share)
        own = [parameter for parameter in layer.parameters() if id(parameter) in trained]
        return ComputedDrift(weight, rows, own, by_rows=by_rows)

    def attach(self, model: Any) -> nn.Module:
        """Wrap the targets.

        Raises:
            UserError: see :func:`ftk_plugins.adaptations.targets.choose_targets` and :func:`choose_whole` there.
        """
        saved = choose_whole(model, self.modules_to_save)
        targets = choose_targets(model, self.name, self.targets(model), saved)
        self._restore_requires_grad = remember_requires_grad(model)
        self._beside = [FullTuning(FullOptions(train=tuple(f"{name}.*" for name in saved)))] if saved else []
        self._beside += [NewRows(self.name, taken={*saved, *targets})] if self.new_tokens else []
        for part in self._beside:
            part.attach(model)
        beside = [parameter for part in self._beside for parameter in part.weights().values()]
        self._transposed = any(isinstance(layer, Conv1D) for layer in targets.values())
        self._tuner: Any = self.inject(model, sorted(targets))
        wrapped = {name for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)}
        if wrapped != set(targets):
            raise RunFailed(f"PEFT wrapped other layers than chosen: {', '.join(sorted(wrapped ^ set(targets)))}")
        self._layers = {name: model.get_submodule(name) for name in targets}
        self._saved, self._shares, self._blends = saved, {}, []
        for layer in self._layers.values():
            layer.train(layer.get_base_layer().training)
        apart = {id(parameter) for parameter in beside}
        self._trained = [p for p in model.parameters() if p.requires_grad and id(p) not in apart]
        for tensor in self._own().values():
            if tensor.is_floating_point():
                tensor.data = tensor.data.float()
        for parameter in beside:
            parameter.requires_grad_(True)
        module: nn.Module = model
        return module

    def param_groups(self, model: nn.Module, lr: float) -> list[dict[str, Any]]:
        beside = [group for part in self._beside for group in part.param_groups(model, lr)]
        return [{"params": self._trained, "lr": lr}, *beside]

    def vectors_apart(self, model: nn.Module, lr: float) -> list[dict[str, Any]]:
        """As :meth:`param_groups`, with the adapters' vectors in a group that never decays."""
        _, *beside = Injected.param_groups(self, model, lr)
        groups: list[dict[str, Any]] = [{"params": [], "lr": lr}, {"params": [], "lr": lr, "weight_decay": 0.0}]
        for parameter in self._trained:
            groups[parameter.ndim < 2]["params"].append(parameter)
        return [*(group for group in groups if group["params"]), *beside]

    def drift(self) -> Mapping[str, Drift]:
        drifts = {f"{name}.{key}": drift for name, layer in self._layers.items() for key, drift in self.drifts(layer)}
        for part in self._beside:
            drifts |= part.drift()
        return drifts

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Turn all adapters off: the base weights are the starting model's own."""
        layers = [layer for layer in self._layers.values() if not layer.disable_adapters]
        required = remember_requires_grad(self._tuner.model)
        with ExitStack() as stack:
            stack.callback(required)
            for layer in layers:
                layer.enable_adapters(False)
                stack.callback(layer.enable_adapters, True)
            for part in self._beside:
                stack.enter_context(part.reference())
            yield

    def scale_each(self, share: Callable[[str], float]) -> None:
        for blend in self._blends:
            blend.remove()
        self._shares = {name: alpha for name in self._layers if (alpha := share(f"{name}.weight")) != 1}
        self._blends = [
            self._layers[name].register_forward_hook(partial(_mix_outputs, alpha), with_kwargs=True)
            for name, alpha in self._shares.items()
        ]
        for part in self._beside:
            part.scale_each(share)

    def export(self, directory: Path) -> str | None:
        """Write ``adapter/``: a plain PEFT adapter; loaded on the starting model it gives this one.

        Nothing is written where the drift is scaled: the method's parameters cannot say that.
        """
        if self._shares:
            held = sorted(set(self._shares.values()))
            share = f"{held[0]:g}" if len(held) == 1 else f"{held[0]:g} to {held[-1]:g}"
            return (
                f"There is no adapter beside the model: it holds {share} of what `{self.name}` learned, a step "
                "between weights that the method's own parameters cannot express."
            )
        shell = _Shell(self._tuner)
        tensors = get_peft_model_state_dict(shell, adapter_name=TRAINED, save_embedding_layers=False)
        self.write(directory, self._tuner.peft_config[TRAINED], tensors)
        return None

    def write(self, directory: Path, config: PeftConfig, tensors: Mapping[str, Tensor]) -> None:
        """Write PEFT's two files, with what is trained beside the adapters, under ``directory``."""
        folder, model = directory / "adapter", self._tuner.model
        folder.mkdir(parents=True, exist_ok=True)
        tensors, saved = dict(tensors), set(self._saved)
        for part in self._beside:
            if isinstance(part, NewRows):
                tensors |= {f"base_model.model.{name}": rows for name, rows in part.peft_tensors().items()}
                config.trainable_token_indices = part.peft_indices()
                continue
            values = {id(parameter): parameter for parameter in part.weights().values()}
            for name, parameter in model.named_parameters(remove_duplicate=False):
                if id(parameter) in values:
                    tensors[f"base_model.model.{name}"] = parameter
                    if not any(name.startswith(f"{module}.") for module in self._saved):
                        saved.add(name.rpartition(".")[0])  # tied: the other module must get the weight as well
            config.modules_to_save = sorted(saved)
        plain = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
        save_file(plain, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        config.target_modules = sorted(config.target_modules)
        config.inference_mode = True
        config.task_type = _task_type(model)
        config.base_model_name_or_path = getattr(model, "name_or_path", "") or None
        kind = _class_of(model)
        told = {"base_model_class": kind.__name__, "parent_library": kind.__module__}
        config.save_pretrained(str(folder), auto_mapping_dict=None if config.task_type else told)

    @torch.no_grad()
    def merge(self) -> Any:
        make_plain(self._tuner.model)  # a sum of few bits and an update has no such few bits
        for layer in self._layers.values():
            for _, drift in self.drifts(layer):
                for start, stop in drift.chunks():
                    own, first = own_rows(drift.weight)
                    rows = own[start - first : stop - first]
                    rows.copy_(rows.float() + drift.rows(start, stop))
        for blend in self._blends:
            blend.remove()
        for part in self._beside:
            part.merge()
        model = self._tuner.unload()
        self._restore_requires_grad()
        self._layers, self._trained, self._blends, self._beside = {}, [], [], []
        return model

    def state_dict(self) -> State:
        state: dict[str, Any] = self.tensors()
        for part in self._beside:
            state |= part.state_dict()
        return state

    def load_state_dict(self, state: State) -> None:
        take_back(self.state_dict(), state)
        for blend in self._blends:
            blend.remove()
        self._shares, self._blends = {}, []
        for part in self._beside:
            part.load_state_dict({name: state[name] for name in part.weights()})

    def tensors(self) -> dict[str, Tensor]:
        """What the adapters hold, drawn at random or trained, by name."""
        return {name: tensor.detach() for name, tensor in self._own().items()}

    def _own(self) -> dict[str, Tensor]:
        """The adapters' parameters and buffers; what several layers share stands under the first one's name."""
        seen = {id(tensor) for layer in self._layers.values() for tensor in layer.get_base_layer().parameters()}
        found = {}
        for name, layer in self._layers.items():
            for key, tensor in (*layer.named_parameters(), *layer.named_buffers()):
                if id(tensor) not in seen:
                    seen.add(id(tensor))
                    found[f"{name}.{key}"] = tensor
        return found


class _Shell(nn.Module):
    """What PEFT takes for a PeftModel: an adapter's tensors have their names in it, and what it lacks the tuner has."""

    def __init__(self, tuner: BaseTuner) -> None:
        super().__init__()
        self.base_model = tuner

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base_model"), name)


def _mixed(weight: Tensor, effective: Effective, share: float, start: int, stop: int) -> Tensor:
    began = weight[start:stop].detach().float()
    return began + share * (effective(start, stop) - began)


def _mix_outputs(share: float, layer: Any, args: Any, kwargs: Any, output: Tensor) -> Tensor:
    start: Tensor = layer.get_base_layer()(*args, **kwargs)
    return start if share == 0 else start + share * (output - start)


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
