"""How a model computes its attention, changed for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def attention_by(model: nn.Module, implementation: str) -> Iterator[None]:
    """Within it ``model`` computes its attention by ``implementation``, as transformers names it; then as before.

    Raises:
        ImportError, ValueError: it is not installed, or the model does not have it.
        AttributeError: the model is none of transformers'.
    """
    changed: Any = model
    configs: list[Any] = [module.config for module in model.modules() if hasattr(module, "config")]
    before = [(config, config._attn_implementation_internal) for config in configs]
    try:
        changed.set_attn_implementation(implementation)
        for config in configs:  # the body may have the configuration of another head's model
            if type(config) is type(changed.config):
                config._attn_implementation_internal = changed.config._attn_implementation_internal
        yield
    finally:
        for config, kept in before:
            config._attn_implementation_internal = kept
