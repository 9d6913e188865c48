"""Every plugin that was found, the broken ones as data, and how a variant is looked up by name."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ftk.errors import UserError, did_you_mean
from ftk.plugin.options import Options
from ftk.plugin.variant import KINDS, Variant, import_reference

if TYPE_CHECKING:
    from ftk.events import RunEvent

OWN_DISTRIBUTION = "finetune-toolkit"
RESERVED_KEYS = {kind: ("use", "name", "transform") if kind == "dataset" else ("use", "name") for kind in KINDS}
"""The keys of a part's table that belong to the recipe and not to the part's options."""


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """One plugin, whether it works or not.

    Attributes:
        name: its entry point, or its module where the entry point lists several in ``PLUGINS``.
        distribution: the package that brings it.
        version: that package's version.
        status: ``broken`` plugins may still offer the variants of those hooks that work.
        reason: what is wrong, on one line.
        mend: the command that mends or removes it.
    """

    name: str
    distribution: str
    version: str
    status: Literal["ok", "broken", "disabled"]
    reason: str = ""
    mend: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One variant with who offers it; ``conflict`` where another distribution offers the same name."""

    kind: str
    variant: Variant
    distribution: str
    version: str
    plugin: str
    status: Literal["ok", "conflict"] = "ok"
    reason: str = ""

    @property
    def qualified(self) -> str:
        """The name that no other distribution can offer: ``distribution/variant``."""
        return f"{self.distribution}/{self.variant.name}"

    def options_class(self) -> type[Options]:
        """Import the variant's options.

        Raises:
            UserError: the import fails or finds no usable class; names the distribution and the mend.
        """
        try:
            found = import_reference(self.variant.options)
            if not (isinstance(found, type) and issubclass(found, Options)):
                raise TypeError(f"{self.variant.options} is no subclass of ftk.Options")
            taken = [key for key in RESERVED_KEYS[self.kind] if key in found.model_fields]
            if taken:
                raise TypeError(f"its options declare `{taken[0]}`, a key that belongs to the recipe")
        except (Exception, SystemExit) as error:
            message = f"`{self.variant.name}` of {self.distribution} {self.version} is broken: {one_line(error)}"
            raise UserError(message, mend(self.distribution)) from error
        return found


class Registry:
    """Everything that a recipe can name here."""

    def __init__(
        self,
        plugins: tuple[PluginInfo, ...],
        entries: tuple[Entry, ...],
        observers: tuple[Callable[[RunEvent], object], ...] = (),
    ) -> None:
        self.plugins = plugins
        self._entries = tuple(sorted(entries, key=lambda e: (KINDS.index(e.kind), e.variant.name, e.distribution)))
        self._observers = observers

    def entries(self, kind: str | None = None) -> list[Entry]:
        """The variants of one kind or of all, by kind, then name."""
        return [entry for entry in self._entries if kind in (None, entry.kind)]

    def observers(self) -> list[Callable[[RunEvent], object]]:
        """What the plugins offer as ``ftk_run_event``; each takes the event."""
        return list(self._observers)

    def broken(self) -> list[PluginInfo]:
        """The plugins that do not work."""
        return [plugin for plugin in self.plugins if plugin.status == "broken"]

    def find(self, kind: str, use: str) -> Entry:
        """The variant that ``use = "..."`` names: ``name``, or ``distribution/name``.

        Raises:
            UserError: no variant, or several; says what is near, what is of another kind, what is broken.
        """
        distribution, _, name = use.rpartition("/")
        found = [
            entry for entry in self.entries(kind)
            if entry.variant.name == name and canonical(distribution) in ("", canonical(entry.distribution))
        ]  # fmt: skip
        if len(found) == 1:
            return found[0]
        if found:
            choices = sorted({entry.qualified for entry in found})
            if len(choices) == 1:
                raise UserError(f"{found[0].distribution} offers {kind} `{name}` twice", mend(found[0].distribution))
            offers = " and by ".join(sorted({entry.distribution for entry in found}))
            writes = " or ".join(f'use = "{choice}"' for choice in choices)
            raise UserError(f"{kind} `{name}` is offered by {offers}", f"write {writes}")
        raise self._unknown(kind, use, distribution, name)

    def _unknown(self, kind: str, use: str, distribution: str, name: str) -> UserError:
        for plugin in self.plugins:
            if plugin.status != "ok" and _may_offer(plugin, distribution, name):
                message = f"`{use}` cannot be used: plugin {plugin.name} is {plugin.status}: {plugin.reason}"
                return UserError(message, plugin.mend)
        others = [entry.kind for entry in self._entries if entry.variant.name == name]
        if others and kind not in others:
            return UserError(f"`{name}` is {article(others[0])}, not {article(kind)}", self._names(kind))
        if kind in others:
            offers = ", ".join(entry.qualified for entry in self.entries(kind) if entry.variant.name == name)
            return UserError(f"{distribution} offers no {kind} `{name}`", f"offered by: {offers}")
        hints = [did_you_mean(name, (entry.variant.name for entry in self.entries(kind))) or self._names(kind)]
        broken, disabled = self.broken(), [p for p in self.plugins if p.status == "disabled"]
        if broken:
            hints.append(f"could not be loaded: {', '.join(p.name for p in broken)} (see ftk list-plugins)")
        if disabled:
            hints.append(f"turned off: {', '.join(p.name for p in disabled)}")
        return UserError(f"unknown {kind} `{use}`", "; ".join(hints))

    def _names(self, kind: str) -> str:
        names = sorted({entry.variant.name for entry in self.entries(kind)})
        return f"valid here: {', '.join(names)}" if names else f"no plugin here offers {article(kind)}"


def own_version() -> str:
    """The version of ftk that is installed; ``unknown`` where it runs without being installed."""
    try:
        return metadata.version(OWN_DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "unknown"


def one_line(error: BaseException) -> str:
    """An exception as one line: its type, its text, and the place in the code that it came from."""
    text = " ".join(str(error).split())
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _machinery(frame.filename)]
    place = f" ({'/'.join(Path(frames[-1].filename).parts[-2:])}, line {frames[-1].lineno})" if frames[1:] else ""
    return f"{type(error).__name__}{': ' if text else ''}{text:.300}{place}"


def mend(distribution: str) -> str:
    """The command that mends a broken distribution, or removes it."""
    if distribution == OWN_DISTRIBUTION:
        return f"pip install --force-reinstall {distribution}"
    return f"pip install --upgrade {distribution}, or pip uninstall {distribution}"


def canonical(name: str) -> str:
    """A distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def article(noun: str) -> str:
    """``a mitigation``, ``an adaptation``."""
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"


def _may_offer(plugin: PluginInfo, distribution: str, name: str) -> bool:
    """Whether a plugin that did not load is likely the one that a recipe means."""
    if distribution:
        return canonical(distribution) == canonical(plugin.distribution)
    wanted, last = canonical(name), canonical(plugin.name.rpartition(".")[2])
    return wanted == last or canonical(plugin.distribution).endswith(f"-{wanted}")


def _machinery(filename: str) -> bool:
    """Whether a frame belongs to the import system, which is never the place where a plugin is wrong."""
    return filename.startswith("<") or Path(filename).parent.name in ("importlib", "metadata")
