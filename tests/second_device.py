"""An accelerator that is not there: tensors of a device of their own, computed by the CPU, that never mix with its own.

It makes of torch's spare device (``PrivateUse1``) one whose tensors hold a CPU tensor each. An operation on them is the
CPU's on what they hold, so results are the same bits; one that mixes them with tensors of the CPU fails, as on a GPU.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map, tree_map_only
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "second"
COPIES = (torch.ops.aten.copy_.default, torch.ops.aten._to_copy.default, torch.ops.aten._local_scalar_dense.default)


class Held(Tensor):
    """A tensor on the device, around one of the CPU."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Held:
        made: Held = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            device=torch.device(NAME, 0), requires_grad=False,
        )  # fmt: skip
        made.inner = inner
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Held({self.inner!r})"

    @property
    def data(self) -> Tensor:  # type: ignore[override]
        return self.detach()

    @data.setter
    def data(self, value: Held) -> None:
        self.inner = value.inner

    def tolist(self) -> Any:
        return self.inner.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in COPIES:
            return _copied(func, args, kwargs)
        tensors = [leaf for leaf in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        strange = [t for t in tensors if not isinstance(t, Held) and t.ndim]
        if strange:
            raise RuntimeError(f"{func}: tensors of {NAME} and of {strange[0].device} together")
        device = kwargs.get("device")
        there = device is None or torch.device(device).type == NAME
        bare = {name: torch.device("cpu") if name == "device" else value for name, value in kwargs.items()}
        given = tree_map_only(Held, lambda held: held.inner, (args, bare))
        result = func(*given[0], **given[1])
        known = {id(t.inner): t for t in tensors if isinstance(t, Held)}
        return tree_map(
            lambda value: known.get(id(value), Held(value) if there else value) if isinstance(value, Tensor) else value,
            result,
        )


def _copied(func: Any, args: Any, kwargs: Any) -> Any:
    """What may cross from one device to the other."""
    bare = tree_map_only(Held, lambda held: held.inner, args)
    if func is torch.ops.aten.copy_.default:
        bare[0].copy_(bare[1])
        return args[0]
    if func is torch.ops.aten._local_scalar_dense.default:
        return func(*bare)
    device = torch.device(kwargs.get("device") or args[0].device)
    result = func(*bare, **{**kwargs, "device": torch.device("cpu")})
    return Held(result) if device.type == NAME else result


class _Hidden(torch._C._acc.PrivateUse1Hooks):  # type: ignore[name-defined,misc]
    """Nobody who asks whether there is an accelerator finds this one."""

    def is_available(self) -> bool:
        return False

    def has_primary_context(self, device: int) -> bool:
        return True

    def is_built(self) -> bool:
        return False


class _Module(_DummyBackendModule):
    """What torch looks for under the device's name; its random numbers are the CPU's."""

    def manual_seed(self, seed: int) -> None:
        pass

    def is_available(self) -> bool:
        return False

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


@cache
def second_device() -> torch.device:
    """The device, made at the first call, for the rest of the process."""
    _setup_privateuseone_for_python_backend(NAME, backend_module=_Module(), hook=_Hidden())
    library = torch.library.Library("aten", "IMPL")

    def empty(size: Any, dtype: Any = None, **_: Any) -> Tensor:
        return Held(torch.empty(size, dtype=dtype))

    def empty_strided(size: Any, stride: Any, dtype: Any = None, **_: Any) -> Tensor:
        return Held(torch.empty_strided(size, stride, dtype=dtype))

    def eye(size: Any, dtype: Any = None, **_: Any) -> Tensor:
        return Held(torch.eye(size, dtype=dtype))

    def copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
        inner = [t.inner if isinstance(t, Held) else t for t in (source, target)]
        inner[1].copy_(inner[0])
        return target

    library.impl("empty.memory_format", empty, "PrivateUse1")
    library.impl("empty_strided", empty_strided, "PrivateUse1")
    library.impl("eye", eye, "PrivateUse1")
    library.impl("_copy_from", copy_from, "PrivateUse1")
    second_device.library = library  # type: ignore[attr-defined]
    return torch.device(NAME, 0)
