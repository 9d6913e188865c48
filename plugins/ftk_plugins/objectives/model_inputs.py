"""What a model is called with: positions and masks of packed rows, the start of a decoder."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from ftk import UserError
from ftk.parts import evaluated

START = -1
"""Stands in ``decoder_input_ids`` for the token with which the model's decoder starts."""

_NAMES = ("input_ids", "attention_mask", "position_ids", "decoder_input_ids")


def model_arguments(base: Any, inputs: Mapping[str, Tensor], shift: int) -> dict[str, Tensor]:
    """The arguments of a forward pass on the inputs of a batch.

    Args:
        base: the model, under any wrapper and adapter.
        inputs: ``input_ids``, and as the batch has them ``attention_mask``, ``position_ids`` (of packed rows) and
            ``decoder_input_ids``, all ``(rows, time) int64``.
        shift: 1 for a model that looks to the left alone, 0 for one that reads in both directions.

    Raises:
        UserError: the rows are packed and the model cannot keep packed rows apart; or nothing says how its decoder
            starts.
    """
    arguments = {name: inputs[name] for name in _NAMES if name in inputs}
    if "position_ids" in arguments:
        if "position_ids" not in forward_parameters(base.__class__):
            raise _mixed(base, "it takes no position ids")
        if shift == 0:
            if reason := _mixes(base):
                raise _mixed(base, reason)
            arguments.update(_apart(base, arguments["position_ids"]))
    if "decoder_input_ids" in arguments:
        ids = arguments["decoder_input_ids"]
        arguments["decoder_input_ids"] = ids.masked_fill(ids == START, _decoder_start(base))
    return arguments


def base_model(model: nn.Module) -> Any:
    """The model whose forward names its parameters, under any wrapper and adapter."""
    base: Any = model
    while isinstance(base, nn.parallel.DistributedDataParallel) or hasattr(base, "_orig_mod"):
        base = base.module if isinstance(base, nn.parallel.DistributedDataParallel) else base._orig_mod
    return base.get_base_model() if hasattr(base, "get_base_model") else base


@lru_cache
def forward_parameters(model_class: type) -> frozenset[str]:
    """The names of the parameters of a model's forward pass."""
    return frozenset(inspect.signature(model_class.forward).parameters)  # type: ignore[attr-defined]


def attention_of(base: Any) -> str:
    """The implementation of attention that a model runs with."""
    return str(getattr(getattr(base, "config", None), "_attn_implementation", ""))


def _apart(base: Any, position_ids: Tensor) -> dict[str, Tensor]:
    """Position ids and mask ``(rows, 1, time, time)`` with which both directions end where a packed row does."""
    row = (position_ids == 0).cumsum(1)
    mask = row[:, None, :, None] == row[:, None, None, :]
    if attention_of(base) != "sdpa":
        # The others add the mask to their scores.
        dtype = next(base.parameters()).dtype
        mask = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, torch.finfo(dtype).min)
    return {"attention_mask": mask, "position_ids": position_ids + _first_position(base)}


def _first_position(base: Any) -> int:
    """The number of a row's first position: RoBERTa and its kin count from behind the padding token's id."""
    for name, module in base.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            return 0 if module.padding_idx is None else module.padding_idx + 1
    return 0


_MIXES: WeakKeyDictionary[nn.Module, tuple[str, str]] = WeakKeyDictionary()
"""By model: its attention when it was tried, and why it cannot keep packed rows apart; "" where it can."""


def _mixes(base: Any) -> str:
    """Why a model that reads in both directions cannot keep packed rows apart; "" where it can."""
    attention = attention_of(base)
    known = _MIXES.get(base)
    if known is None or known[0] != attention:
        known = _MIXES[base] = (attention, _tried_apart(base, attention))
    return known[1]


def _tried_apart(base: Any, attention: str) -> str:
    """Compare two short rows alone and packed."""
    config = base.config
    kinds = getattr(config, "layer_types", None) or ()
    if any("sliding" in kind for kind in kinds) or getattr(config, "local_attention", None):
        return "some of its layers look at a window of positions, which a mask for packed rows would widen"
    if "flash" in attention or "flex" in attention:
        return f"`{attention}` takes no mask for packed rows"
    weight = next(base.parameters())
    places = (buffer.flatten() for name, buffer in base.named_buffers() if name.endswith("position_ids"))
    if without_values(base) or any(len(numbers) > 1 and not numbers.diff().all() for numbers in places):
        return ""  # planning, in which values are none or made up, has nothing to compare
    lengths = [3, 5]
    # No padding token among them, which some models count no position for.
    padding = config.get_text_config().pad_token_id
    ids = torch.tensor([[id for id in range(sum(lengths) + 1) if id != padding][-sum(lengths) :]], device=weight.device)
    positions = torch.cat([torch.arange(length, device=weight.device) for length in lengths])[None]
    with torch.no_grad(), evaluated(base), torch.autocast(weight.device.type, enabled=False):
        alone = torch.cat([base.forward(input_ids=row).logits for row in torch.split(ids, lengths, 1)], dim=1)
        try:
            packed = base.forward(input_ids=ids, **_apart(base, positions)).logits
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            return f"its forward pass takes no mask for packed rows ({error})"
    near = 1e-4 if weight.dtype == torch.float32 else 3e-2
    apart = torch.allclose(packed, alone, rtol=near, atol=near * float(alone.abs().max()))
    return "" if apart else "it gives packed rows other predictions than each of them alone"


def without_values(base: Any) -> bool:
    """Whether a model has shapes alone, so that nothing can be tried on it: as in planning."""
    weight = next(base.parameters())
    return weight.device.type == "meta" or isinstance(weight, FakeTensor)


def _mixed(base: Any, reason: str) -> UserError:
    return UserError(f"{type(base).__name__} cannot keep packed rows apart: {reason}", "set `packing = false`")


def _decoder_start(base: Any) -> int:
    for config in (base.config, getattr(base, "generation_config", None)):
        start = getattr(config, "decoder_start_token_id", None)
        if start is not None:
            return int(start)
    raise UserError(
        f"{type(base).__name__}: its configuration does not say with which token its decoder starts",
        "set `decoder_start_token_id` in the model's config.json",
    )
