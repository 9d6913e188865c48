"""ftk: fine-tune transformers without forgetting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ftk.errors import FtkError, RecipeError, RunFailed, UserError
from ftk.hookspecs import hookimpl
from ftk.options import Options
from ftk.variant import Variant

if TYPE_CHECKING:
    from ftk.runner import RunResult, run

__version__ = "0.1.0"
__all__ = [
    "FtkError",
    "Options",
    "RecipeError",
    "RunFailed",
    "RunResult",
    "UserError",
    "Variant",
    "__version__",
    "hookimpl",
    "run",
]


def __getattr__(name: str) -> Any:
    """Import what needs torch only when it is asked for."""
    if name in ("run", "RunResult"):
        from ftk import runner

        return getattr(runner, name)
    raise AttributeError(f"module 'ftk' has no attribute {name!r}")
