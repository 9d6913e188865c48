"""Holding the weights of a pretrained model in few bits, by bitsandbytes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import BitsAndBytesConfig

from ftk import UserError
from ftk_plugins.models.calls import shortened
from ftk_plugins.models.pretrained.options import PretrainedOptions


def quantization_of(options: PretrainedOptions) -> Any | None:
    """What Transformers is told about the weights of the linear layers; None where they are held whole.

    The products are computed in ``dtype``, in which all other weights are held.
    """
    if options.quantization == "none":
        return None
    if options.quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=options.quantization,
        bnb_4bit_use_double_quant=options.double_quantization,
        bnb_4bit_compute_dtype=torch.float32 if options.dtype == "auto" else getattr(torch, options.dtype),
    )


@contextmanager
def quantizing(options: PretrainedOptions) -> Iterator[None]:
    """Turn what bitsandbytes raises where it cannot run into a :class:`ftk.UserError`."""
    if options.quantization == "none":
        yield
        return
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it tells of each cast of an input
    try:
        yield
    except UserError as error:
        if not isinstance(error.__cause__, ImportError):
            raise
        raise _cannot_run(options, error.message) from error
    except (RuntimeError, NotImplementedError, AttributeError) as error:
        raise _cannot_run(options, str(error)) from error


def settle(model: Any) -> None:
    """Have a quantized model compute the same whenever it is asked, and go where the run puts it.

    In ``eval`` mode bitsandbytes would rearrange the weights for a CPU in place, and round their scales once more: what
    a run computes would depend on when it was last measured. Where Transformers put the layers is a note that
    Accelerate goes by.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    if hasattr(model, "hf_device_map"):
        del model.hf_device_map


def _cannot_run(options: PretrainedOptions, reason: str) -> UserError:
    return UserError(
        f'model.quantization = "{options.quantization}": bitsandbytes cannot run here: '
        f"{shortened(' '.join(reason.split()))}",
        "it needs an NVIDIA, AMD or Intel accelerator, or, from version 0.49 on, a CPU: "
        "pip install --upgrade bitsandbytes, or leave `quantization` out",
    )
