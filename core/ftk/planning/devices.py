"""From what a stage holds on one device to what each of several holds, whole or divided."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from ftk.planning.memory import Station
from ftk.processes.sharding import units

PASSING = ("activations", "loss")
"""Parts that each device has of its own rows."""


@dataclass(frozen=True)
class Shares:
    """How a stage's model lies on the devices.

    Attributes:
        devices: how many there are.
        divided: whether each holds its rows of every weight, or all of them.
        new: bytes of the parameters that the adaptation brought, which are never divided.
        learning: the share of the trained parameters that these are.
        trained: bytes of all gradients.
        together: bytes of what is put together at a time while a divided model computes.
    """

    devices: int
    divided: bool
    new: int
    learning: float
    trained: int
    together: int

    def of(self, station: Station) -> Station:
        """The station on each device."""
        if self.devices == 1:
            return station
        if not self.divided:
            # DistributedDataParallel sums gradients in buckets of its own.
            exchanged = {"exchange": self.trained} if "optimizer" in station.parts else {}
            return replace(station, parts={**station.parts, **exchanged})
        parts = {part: self._divided(part, size) for part, size in station.parts.items()}
        return replace(station, parts={**parts, "put together": self.together})

    def _divided(self, part: str, size: int) -> int:
        if part in PASSING:
            return size
        if part == "weights":
            return (size - self.new) // self.devices + self.new
        whole = self.learning if part in ("gradients", "optimizer") else 0.0
        return int(size * whole + size * (1 - whole) / self.devices)


def shares_of(start: nn.Module, adapted: nn.Module, devices: int, divided: bool, in_bf16: bool) -> Shares:
    """How a stage's model lies on the devices.

    Args:
        start: the model before the adaptation; its tensors' values are not looked at.
        adapted: with it.
        devices: how many there are.
        divided: whether the recipe divides it.
        in_bf16: whether it computes in bf16, in which layers are then put together.
    """
    before = sum(_bytes(p) for p in start.parameters())
    trained = [p for p in adapted.parameters() if p.requires_grad]
    gradients = sum(map(_bytes, trained))
    new = sum(map(_bytes, adapted.parameters())) - before
    return Shares(
        devices, divided, new, min(1.0, new / max(gradients, 1)), gradients,
        _together(start, in_bf16, trains_all=new == 0) if divided else 0,
    )  # fmt: skip


def _together(model: nn.Module, in_bf16: bool, trains_all: bool) -> int:
    """What FSDP2 puts together at a time: the layer that computes and the next one, or an end beside a layer.

    What is in no layer stays together throughout. Of a layer that is trained its whole gradients are there too,
    and once more in float32 while they are added up.
    """
    layers, ends, rest = units(model)
    width = 2 if in_bf16 else 4
    largest = max((sum(p.numel() for p in layer) for layer in layers), default=0)
    size = largest * width
    most_end = max((sum(map(_bytes, end)) for end in ends), default=0)
    gradients = largest * (width + 4) if trains_all else 0
    return sum(map(_bytes, rest)) + size + max(size, most_end) + gradients


def _bytes(parameter: Any) -> int:
    return int(parameter.numel() * parameter.element_size())
