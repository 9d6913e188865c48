"""Calling Transformers without noise, with repeatable draws, and with errors that name the mend."""

from __future__ import annotations

import logging
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from ftk import UserError


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Draw CPU random numbers from ``seed`` within, or from the seed last set; put the state back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(torch.initial_seed() if seed is None else seed)
        yield


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Transformers and the hub client off the terminal; what matters is told by ftk itself."""
    loggers = {name: logging.getLogger(name) for name in ("transformers", "huggingface_hub")}
    levels = {name: one.level for name, one in loggers.items()}
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    for one in loggers.values():
        one.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), _no_gguf_bar():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            loggers[name].setLevel(level)
        if bars:
            transformers_logging.enable_progress_bar()


@contextmanager
def explained(name: str, path: str = "", attention: str = "auto") -> Iterator[None]:
    """Turn what Transformers raises about ``name`` into a :class:`ftk.UserError` with a way out.

    Args:
        name: what is read, for the message.
        path: the folder or hub id that it is read from, if any.
        attention: the implementation of attention that was asked for.
    """
    try:
        yield
    except (SafetensorError, struct.error) as error:
        raise UserError(f"{name}: a weights file is damaged: {error}", "fetch or copy it again") from error
    except (OSError, ValueError, KeyError, ImportError, StrictDataclassError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{name}: {shortened(reason)}", _way_out(error, reason, path, attention)) from error


def _way_out(error: Exception, reason: str, path: str, attention: str) -> str:
    lower = reason.lower()
    if "trust_remote_code" in lower:
        return "if you trust the authors of its code, set `trust_remote_code = true` in [model]"
    if attention != "auto" and any(word in lower for word in ("attn", "attention", "flash")):
        return f'`attention = "{attention}"` does not work here; leave it at "auto"'
    if isinstance(error, ImportError):
        return "install the package that it needs"
    if "model_type" in lower or "does not recognize this architecture" in lower or "not supported yet" in lower:
        return f"Transformers {transformers.__version__} does not know this architecture; a newer version may"
    if any(word in lower for word in ("gated", "401 client", "403 client")):
        return "ask for access on the model's page, then log in with `hf auth login`"
    if "safetensors" in lower or "pytorch_model" in lower:
        return "ftk reads safetensors and GGUF, never pickles; convert the weights with `save_pretrained` first"
    if path and Path(path).is_dir():
        return "a file is missing there or is damaged; fetch or copy the folder again"
    if isinstance(error, OSError):
        return (
            "it is no folder here, and the hub did not give it: check the spelling and the revision; "
            "without a network, give the path of a local folder, or a model that is in the cache already"
        )
    return ""


def shortened(reason: str, limit: int = 300) -> str:
    return reason if len(reason) <= limit else reason[: limit - 1].rstrip() + "…"


@contextmanager
def _no_gguf_bar() -> Iterator[None]:
    """Take out the progress bar of the GGUF reader, which heeds none of the switches of Transformers."""
    try:
        from transformers import modeling_gguf_pytorch_utils as reader
    except ImportError:  # a version without this reader has no such bar
        yield
        return
    bar: Any = reader.tqdm
    reader.tqdm = lambda items, **_: items
    try:
        yield
    finally:
        reader.tqdm = bar
