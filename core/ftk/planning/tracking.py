"""Tensors that have shape and type and no memory, and how many bytes they would hold, by part, at each moment."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

SMALL = 1024
"""A new tensor of fewer elements is real: step counts and the like, whose values optimizers and models read."""

COUNTED = {"arange", "linspace", "logspace", "eye"}
"""Functions that make tensors from nothing whose values are the point of them: real, whatever their size."""


class Tracker(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within it, tensors hold no memory, and what they would hold is counted by part.

    New floating-point tensors, and all that is computed from one, are *fake*: they have shape, type and place, and
    no values. Whole numbers and truth values (token ids, masks, which positions are targets) are real, because the
    shapes of what follows depend on their values. Storages are counted when an operation first returns them, until
    they are freed; memory that a kernel takes for itself is not seen.

    Attributes:
        part: what newly made storages are counted as.
        held: bytes alive now, by part.
        peak: bytes that were alive, by part, when most were alive since :meth:`restart`.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device = device
        self.part = ""
        self.held: Counter[str] = Counter()
        self.peak: Counter[str] = Counter()
        self._most = 0
        self._storages: dict[int, tuple[str, int]] = {}
        # A real tensor beside a fake one, such as token ids beside embeddings, counts as fake.
        self._fakes = FakeTensorMode(allow_non_fake_inputs=True)

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if function is torch.ops.aten.index.Tensor:
            args = (args[0], [number for index in args[1] for number in _numbers(index)], *args[2:])
        result = function(*args, **kwargs) if inputs else self._made(function, args, kwargs)
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf)
        # `module.to()` swaps a fake parameter for another one, and refuses those that this memo knows.
        self._fakes.fake_tensor_converter.tensor_memo.clear()
        return result

    def _made(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What a function gives that makes tensors from none: a fake, unless its values may be read."""
        with self._fakes:
            result = function(*args, **kwargs)
        if not isinstance(result, Tensor) or not result.is_floating_point() or result.numel() < SMALL:
            return function(*args, **kwargs)
        return function(*args, **kwargs) if function.overloadpacket.__name__ in COUNTED else result

    def hollow(self, tensor: Tensor) -> Tensor:
        """A fake tensor like this one, on the tracker's device."""
        with self._fakes:
            return torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device=self.device)

    def claim(self, tensors: Iterable[Tensor | None], part: str) -> None:
        """Count the storages of these tensors as ``part`` from now on."""
        for tensor in tensors:
            if tensor is not None:
                self._count(tensor)
                key = tensor.untyped_storage()._cdata
                if key in self._storages:
                    before, size = self._storages[key]
                    self._storages[key] = part, size
                    self.held[before] -= size
                    self.held[part] += size

    def restart(self) -> None:
        """Begin to look for the peak anew."""
        self.peak, self._most = Counter(self.held), self.held.total()

    @contextmanager
    def counting(self, part: str) -> Iterator[None]:
        """Within it, what is newly made is counted as ``part``."""
        before, self.part = self.part, part
        try:
            yield
        finally:
            self.part = before

    def _count(self, tensor: Tensor) -> None:
        if tensor.device.type != self.device.type:
            return
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._storages:
            return
        size = storage.nbytes()
        self._storages[key] = self.part, size
        self.held[self.part] += size
        weakref.finalize(storage, self._free, key).atexit = False
        if (now := self.held.total()) > self._most:
            self._most, self.peak = now, Counter(self.held)

    def _free(self, key: int) -> None:
        part, size = self._storages.pop(key)
        self.held[part] -= size


def _numbers(index: Any) -> Sequence[Any]:
    """A real mask as the positions where it is true, so that the shape of what it picks is known."""
    if isinstance(index, Tensor) and index.dtype == torch.bool and not isinstance(index, FakeTensor):
        return index.nonzero(as_tuple=True)
    return (index,)
