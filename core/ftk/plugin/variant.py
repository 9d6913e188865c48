"""The declaration by which a plugin offers one choice that a recipe can name."""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from typing import Any

KINDS = ("model", "dataset", "transform", "objective", "adaptation", "mitigation", "evaluator", "merge")
"""Every kind of variant, in the order in which a recipe names them, and methods of merging."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")
_REFERENCE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


@dataclass(frozen=True, slots=True)
class Variant:
    """One choice of one kind: what ``use = "name"`` in a recipe stands for.

    Declaring costs nothing: ``options`` and ``build`` are ``"module:attribute"`` strings, imported only when
    a recipe names the variant, so that listing plugins imports neither torch nor other variants.

    Attributes:
        name: what a recipe writes after ``use =``; lower case, digits, ``_``, ``-`` and ``.``.
        summary: one line for ``ftk list-plugins``.
        options: where the variant's :class:`ftk.plugin.options.Options` subclass is.
        build: where the callable is that takes an instance of ``options`` and returns the part.
        needs: capabilities that other choices of the recipe must provide, see ``docs/hooks.md``.
        provides: capabilities that this variant gives to the others.
        paper: the source of the method: authors, year, title, and an address or a DOI.

    Raises:
        ValueError: a field breaks the form above.
    """

    name: str
    summary: str
    options: str
    build: str
    needs: tuple[str, ...] = ()
    provides: tuple[str, ...] = ()
    paper: str = ""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"variant name {self.name!r}: use lower case letters, digits, '_', '-' and '.'")
        if not self.summary.strip() or "\n" in self.summary:
            raise ValueError(f"variant {self.name!r}: summary must be one line of text")
        for field in ("options", "build"):
            if not _REFERENCE.fullmatch(getattr(self, field)):
                raise ValueError(f'variant {self.name!r}: {field} must read "module:attribute"')


def import_reference(reference: str) -> Any:
    """Import what a ``"module:attribute"`` string names."""
    module, _, attribute = reference.partition(":")
    found: Any = importlib.import_module(module)
    for name in attribute.split("."):
        found = getattr(found, name)
    return found
