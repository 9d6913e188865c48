"""ftk: fine-tune transformers without forgetting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ftk.errors import FtkError, Interrupted, RecipeError, RunFailed, UserError, did_you_mean
from ftk.events import RunEvent
from ftk.hookspecs import HOOK_VERSION, hookimpl
from ftk.plugin.options import Options
from ftk.plugin.variant import Variant

if TYPE_CHECKING:
    from ftk.running.runner import RunResult, run

    __version__: str

__all__ = [
    "HOOK_VERSION",
    "FtkError",
    "Interrupted",
    "Options",
    "RecipeError",
    "RunEvent",
    "RunFailed",
    "RunResult",
    "UserError",
    "Variant",
    "__version__",
    "did_you_mean",
    "hookimpl",
    "run",
]


def __getattr__(name: str) -> Any:
    """Import what takes time only when it is asked for."""
    if name in ("run", "RunResult"):
        from ftk.running import runner

        return getattr(runner, name)
    if name == "__version__":
        from ftk.plugin.registry import own_version

        return own_version()
    raise AttributeError(f"module 'ftk' has no attribute {name!r}")
