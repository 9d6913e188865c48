"""A model in one process whose layers lie on several devices, in main memory or in files (``training.device_map``).

Accelerate infers which layer goes where; what makes the layers compute is ours. Its own hooks leave weights that are
away on the device ``meta``, where no drift, penalty, merge or checkpoint can read them. Here every weight is a tensor
with values wherever it lies, and only while its layer computes there is a copy of it on the layer's device.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from accelerate import infer_auto_device_map
from accelerate.utils import get_balanced_memory, get_max_memory, send_to_device
from torch import Tensor, nn

from ftk.errors import UserError, did_you_mean

DISK = "disk"
FREE = 0.8
"""The share of a device's free memory that weights may take where the recipe does not say; the rest is training's."""

KEPT_WHERE_THEY_ARE = ("past_key_values", "past_key_value")
"""Arguments that are no tensors and know by themselves which device each layer's are on."""


@dataclass(frozen=True)
class Placement:
    """What a recipe says of where layers lie.

    Attributes:
        wanted: ``auto``, ``sequential``, or a place for each name of a module or weight: the number of an accelerator,
            ``cpu`` or ``disk``.
        max_memory: the most that weights may take of each place, for ``auto`` and ``sequential``.
        folder: where weights on disk are written; None: where the system has its temporary files.
    """

    wanted: str | Mapping[str, int | str]
    max_memory: Mapping[str, str] | None
    folder: Path | None

    def place(self, model: Any, main: torch.device) -> str:
        """Put a model that is on the CPU where it belongs; with what lies where, in words.

        Args:
            model: with all its weights.
            main: the run's device: batches come from it and outputs return to it, it computes what lies in main memory
                or on disk, and it has what the recipe does not name.

        Raises:
            UserError: this machine has no such device, a name is not the model's, or its weights are quantized.
        """
        for name, parameter in model.named_parameters():
            if not parameter.is_floating_point():
                raise UserError(
                    f"training.device_map: {name} is quantized ({parameter.dtype}), and only its own layer can move it",
                    "leave out one of the two, training.device_map or the quantization",
                )
        places = self.places(model, main)
        units = list(_units(model))
        devices = {unit: _device_of(path, unit, deep, places, main) for path, unit, deep in units}
        sizes = self._move(model, places, main)
        for path, module in model.named_modules():
            device = next((devices[u] for p, u, deep in units if u is module or (deep and _within(path, p))), main)
            for name, buffer in module._buffers.items():
                module._buffers[name] = None if buffer is None else buffer.to(device)
        if main.type != "cpu":  # else everything is on the CPU, and torch reads from a file what lies there
            for _, unit, deep in units:
                _visit(unit, devices[unit], deep)
            for module in {model, getattr(model, "base_model", model)}:
                module.register_forward_hook(_Return(main))
        return ", ".join(f"{size / 1e9:.3g} GB {_in_words(place)}" for place, size in sizes.items())

    def places(self, model: Any, main: torch.device) -> dict[str, torch.device | str]:
        """The place of each weight, by its first name."""
        if isinstance(self.wanted, str):
            wanted = self._inferred(model, main)
        else:
            wanted = dict(self.wanted)
            names = {name for name, _ in model.named_modules()} | {name for name, _ in model.named_parameters()}
            for name in wanted.keys() - names:
                reason = f"training.device_map: the model has no module or weight `{name}`"
                as_deep = {other for other in names if other and other.count(".") <= name.count(".")}
                raise UserError(reason, did_you_mean(name, as_deep))
        found = {}
        for name, _ in model.named_parameters():
            entries = [entry for entry in wanted if entry == "" or _within(name, entry)]
            place = wanted[max(entries, key=len)] if entries else main
            found[name] = _device(place, main) if place != DISK else DISK
        return found

    def _inferred(self, model: Any, main: torch.device) -> Mapping[str, int | str]:
        if main.type in ("cpu", "mps"):
            raise UserError(
                f'training.device_map = "{self.wanted}" divides a model among accelerators, and this run is on '
                f"{main.type}",
                "leave it out",
            )
        whole = list(getattr(model, "_no_split_modules", None) or ())
        if self.max_memory:
            memory = get_max_memory({int(k) if k.isdigit() else k: v for k, v in self.max_memory.items()})
        else:
            memory = {place: int(size * FREE) for place, size in get_max_memory().items()}
        if self.wanted == "auto":
            memory = get_balanced_memory(model, max_memory=memory, no_split_module_classes=whole)
        inferred: Mapping[str, int | str] = infer_auto_device_map(
            model, max_memory=memory, no_split_module_classes=whole
        )
        return inferred

    def _move(self, model: Any, places: Mapping[str, torch.device | str], main: torch.device) -> Counter[Any]:
        """Put each weight into its place, one after another; tied ones stay one. Returns the bytes of each place."""
        moved: dict[int, nn.Parameter] = {}
        sizes: Counter[Any] = Counter()
        with tempfile.TemporaryDirectory(prefix="ftk-weights-", dir=self.folder) as folder:
            for name, parameter in model.named_parameters():
                place = places[name]
                sizes[place] += parameter.numel() * parameter.element_size()
                own = parameter.detach()
                fresh = _mapped(own, Path(folder) / "weight") if place == DISK else own.to(place)
                moved[id(parameter)] = nn.Parameter(fresh, parameter.requires_grad)
            for module in model.modules():
                for name, old in module._parameters.items():
                    module._parameters[name] = None if old is None else moved[id(old)]
        return sizes


def placement_of(
    wanted: str | Mapping[str, int | str], max_memory: Mapping[str, str] | None, folder: Path | None
) -> Placement | None:
    """What ``device_map`` and ``max_memory`` of a recipe ask for; None where all layers lie on one device."""
    return None if wanted == "none" else Placement(wanted, max_memory, folder)


def is_placed(model: nn.Module) -> bool:
    """Whether layers of the model compute on devices of their own, or weights of it lie away from where they do."""
    return any(module in _VISITS for module in model.modules())


def follow(model: nn.Module, main: torch.device) -> None:
    """Have what an adaptation has added to a placed model compute where it belongs; nothing is done to other models."""
    if is_placed(model):
        for _, unit, deep in _units(model):
            own = next(unit.parameters(), None)
            if unit not in _VISITS and own is not None:
                _visit(unit, main if own.device.type == "cpu" else own.device, deep)


class _Visit:
    """A module computes on one device: its arguments come there, and copies of weights that lie elsewhere.

    A copy is in the parameter's place while the module computes. It has a graph where the weight is trained, so that
    the gradient arrives where the weight lies. A backward pass keeps the copies that it needs, unless activations are
    recomputed.
    """

    def __init__(self, device: torch.device, deep: bool) -> None:
        self.device = device
        self.deep = deep
        self._away: list[tuple[nn.Module, str, nn.Parameter]] = []

    def before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        for owner in module.modules() if self.deep else (module,):
            for name, parameter in owner._parameters.items():
                if parameter is not None and parameter.device != self.device:
                    self._away.append((owner, name, parameter))
                    # A tensor in a parameter's place.
                    owner._parameters[name] = parameter.to(self.device)  # type: ignore[assignment]
        return (
            send_to_device(args, self.device, skip_keys=KEPT_WHERE_THEY_ARE),
            send_to_device(kwargs, self.device, skip_keys=KEPT_WHERE_THEY_ARE),
        )

    def after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        for owner, name, parameter in self._away:
            owner._parameters[name] = parameter
        self._away.clear()


class _Return:
    """A model's outputs come to the run's device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        return send_to_device(output, self.device, skip_keys=KEPT_WHERE_THEY_ARE)


_VISITS: WeakKeyDictionary[nn.Module, _Visit] = WeakKeyDictionary()


def _visit(module: nn.Module, device: torch.device, deep: bool) -> None:
    visit = _VISITS[module] = _Visit(device, deep)
    module.register_forward_pre_hook(visit.before, with_kwargs=True)
    # Also where the pass breaks off, as the one that recomputes activations does when it has enough.
    module.register_forward_hook(visit.after, always_call=True)


def _units(model: Any) -> Iterator[tuple[str, nn.Module, bool]]:
    """Modules that compute on one device: layers as a whole, and outside of them each module with its own weights."""
    layers = set(getattr(model, "_no_split_modules", None) or ())

    def walk(path: str, module: nn.Module) -> Iterator[tuple[str, nn.Module, bool]]:
        if type(module).__name__ in layers:
            yield path, module, True
            return
        if any(parameter is not None for parameter in module._parameters.values()):
            yield path, module, False
        for name, child in module.named_children():
            yield from walk(f"{path}.{name}" if path else name, child)

    yield from walk("", model)


def _device_of(
    path: str, unit: nn.Module, deep: bool, places: Mapping[str, torch.device | str], main: torch.device
) -> torch.device:
    """Where a unit computes: on the accelerator that it lies on, and else on the run's device."""
    prefix = f"{path}." if path else ""
    lie = {places[f"{prefix}{n}"] for n, _ in unit.named_parameters(recurse=deep) if f"{prefix}{n}" in places}
    if deep and len(lie) > 1:
        raise UserError(
            f"training.device_map: `{path}` would lie in several places, and it computes as a whole on one device",
            f"name `{path}` or what it stands in, and nothing inside it",
        )
    here = [place for place in lie if isinstance(place, torch.device) and place.type != "cpu"]
    return here[0] if here else main


def _device(place: int | str | torch.device, main: torch.device) -> torch.device:
    if isinstance(place, torch.device):
        return place
    if place == "cpu":
        return torch.device("cpu")
    count = 0 if main.type == "cpu" else torch.accelerator.device_count()
    if int(place) >= count:
        there = f"has {count}, counted from 0" if count else "has none"
        raise UserError(
            f"training.device_map: there is no accelerator {place}; this machine {there}",
            'name one that there is, "cpu" or "disk"',
        )
    return torch.device(main.type, int(place))


def _mapped(tensor: Tensor, file: Path) -> Tensor:
    """A copy that is read from a file as it is used; nothing else sees the file, which goes with the tensor."""
    copy = torch.from_file(str(file), shared=True, size=tensor.numel(), dtype=tensor.dtype)
    copy = copy.view(tensor.shape).copy_(tensor)
    os.unlink(file)
    return copy


def _within(name: str, path: str) -> bool:
    return name == path or path == "" or name.startswith(f"{path}.")


def _in_words(place: torch.device | str) -> str:
    if place == DISK:
        return "on disk"
    return "in main memory" if place == torch.device("cpu") else f"on {place}"
