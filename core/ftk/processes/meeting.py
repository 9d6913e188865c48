"""The processes of one run: how they find each other, and what is said when one of them is lost."""

from __future__ import annotations

import os

import torch
from accelerate import Accelerator

from ftk.errors import Interrupted, RunFailed, UserError

FOREIGN = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron",
}
"""What `accelerate launch` sets where its configuration, and not the recipe, would divide the model."""

SIGNS = ("gloo", "nccl", "connection closed by peer", "connection reset by peer", "broken pipe")
"""Words in what torch says when an exchange between processes breaks off."""


def make_accelerator() -> Accelerator:
    """The processes of this run and their device; without an accelerator they meet on CPUs, not each alone.

    Raises:
        UserError: the launcher was told to divide the model or to choose the precision by itself.
    """
    for variable, name in FOREIGN.items():
        if os.environ.get(variable, "").lower() in ("1", "true"):
            raise UserError(
                f"the launcher is set up for {name} ({variable}), and here the recipe says how the work is divided",
                'launch plain processes, with torchrun or `accelerate launch --multi_gpu`; training.sharding = "full" '
                "divides the model among them",
            )
    # The recipe names the precision; the launcher's own would wrap the model a second time.
    return Accelerator(cpu=not torch.accelerator.is_available(), mixed_precision="no")


def lost_process(error: BaseException, accelerator: Accelerator) -> RunFailed | None:
    """What to tell if ``error``, or what caused it, is an exchange that broke off because a peer is gone; else None."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(error, Interrupted):
        if _broke_off(cause):
            return RunFailed(
                f"another process of this run was lost; process {accelerator.process_index} of "
                f"{accelerator.num_processes} noticed it and stops\n"
                "  the reason stands where that process ran; start all of them again to go on from the last checkpoint"
            )
        cause = cause.__cause__
    return None


def _broke_off(error: BaseException) -> bool:
    if isinstance(error, torch.distributed.DistError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and torch.distributed.is_initialized() and any(s in text for s in SIGNS)
