"""Loads plugins one by one: whatever one of them raises becomes its fault and nobody else's."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pluggy

from ftk import hookspecs
from ftk.errors import did_you_mean
from ftk.hookspecs import HOOK_OF_KIND
from ftk.plugin.registry import OWN_DISTRIBUTION, Entry, PluginInfo, Registry, canonical, mend, one_line
from ftk.plugin.variant import Variant

GROUP = "ftk"
HOOKS = frozenset(name for name in vars(hookspecs) if name.startswith("ftk_"))


def load_registry(third_party: bool = True) -> Registry:
    """Load every plugin behind the entry points of the group ``ftk``, each on its own.

    The variable ``FTK_DISABLE_PLUGINS`` turns plugins off: ``1`` or ``all`` for every third party's, or a
    comma-separated list of distributions and entry points.

    Args:
        third_party: whether to load plugins that do not come with ftk.
    """
    loader = _Loader()
    for point in sorted(entry_points(group=GROUP), key=_order):
        loader.add(point, "" if third_party or _owner(point)[0] == OWN_DISTRIBUTION else "--no-third-party")
    return loader.finish()


@dataclass
class _Plugin:
    info: PluginInfo
    faults: list[str] = field(default_factory=list)


class _Loader:
    """Loads and registers plugins, then asks their hooks; keeps what went wrong with each."""

    def __init__(self) -> None:
        self.manager = pluggy.PluginManager("ftk")
        self.manager.add_hookspecs(hookspecs)
        self.plugins: dict[str, _Plugin] = {}
        words = os.environ.get("FTK_DISABLE_PLUGINS", "").split(",")
        self.disabled = {canonical(word.strip()) for word in words} - {"", "0"}

    def add(self, point: EntryPoint, disabled_by: str) -> None:
        distribution, version = _owner(point)
        everything = distribution != OWN_DISTRIBUTION and self.disabled & {"1", "all", "true"}
        if everything or self.disabled & {canonical(distribution), canonical(point.name)}:
            disabled_by = disabled_by or "FTK_DISABLE_PLUGINS"
        info = PluginInfo(point.name, distribution, version, "ok")
        if disabled_by:
            info = replace(info, status="disabled", reason=f"turned off by {disabled_by}")
            self.plugins[f"{distribution}:{point.name}"] = _Plugin(info)
        else:
            self._load(info, point.load)

    def _load(self, info: PluginInfo, load: Callable[[], Any]) -> None:
        key = f"{info.distribution}:{info.name}"
        if key in self.plugins:
            self.plugins[key].faults.append(f"`{info.name}` is listed twice in PLUGINS")
            return
        record = self.plugins[key] = _Plugin(info)
        plugin = None
        try:
            # What a plugin prints while it loads must not end up in the middle of JSON.
            with redirect_stdout(sys.stderr):
                plugin = load()
                record.faults.extend(_other_version(plugin))
                if record.faults:
                    return
                record.faults.extend(_odd_names(plugin))
                self.manager.register(plugin, name=key)
                modules = getattr(plugin, "PLUGINS", ())
            if not isinstance(modules, tuple | list) or not all(isinstance(name, str) for name in modules):
                raise TypeError(f"PLUGINS must be a tuple of module names, not {modules!r}")
        except (Exception, SystemExit) as error:
            record.faults.append(one_line(error))
            if self.manager.get_plugin(key) is not None:
                self.manager.unregister(name=key)
            return
        if not (modules or record.faults or self.manager.get_hookcallers(plugin)):
            record.faults.append("it implements no hook and lists no PLUGINS")
        for module in modules:
            self._load(replace(info, name=module), lambda module=module: importlib.import_module(module))  # type: ignore[misc]

    def finish(self) -> Registry:
        entries = [entry for kind, hook in HOOK_OF_KIND.items() for entry in self._variants(kind, hook)]
        count = Counter((entry.kind, entry.variant.name) for entry in entries)
        for index, entry in enumerate(entries):
            if count[entry.kind, entry.variant.name] > 1:
                reason = f'several offer it; write use = "{entry.qualified}"'
                entries[index] = replace(entry, status="conflict", reason=reason)
        observers = tuple(
            impl.function if impl.argnames else lambda _event, call=impl.function: call()
            for impl in reversed(self.manager.hook.ftk_run_event.get_hookimpls())
        )
        return Registry(tuple(self._info(plugin) for plugin in self.plugins.values()), tuple(entries), observers)

    def _variants(self, kind: str, hook: str) -> Iterator[Entry]:
        for impl in getattr(self.manager.hook, hook).get_hookimpls():
            record = self.plugins[impl.plugin_name]
            try:
                with redirect_stdout(sys.stderr):
                    variants = impl.function()
                if not isinstance(variants, list | tuple) or not all(isinstance(v, Variant) for v in variants):
                    raise TypeError(f"must return a list of Variant, not {variants!r:.60}")
            except (Exception, SystemExit) as error:
                record.faults.append(f"{hook}(): {one_line(error)}")
                continue
            for variant in variants:
                yield Entry(kind, variant, record.info.distribution, record.info.version, record.info.name)

    @staticmethod
    def _info(plugin: _Plugin) -> PluginInfo:
        if not plugin.faults:
            return plugin.info
        reason = "; ".join(plugin.faults)
        return replace(plugin.info, status="broken", reason=reason, mend=mend(plugin.info.distribution))


def _other_version(plugin: Any) -> Iterator[str]:
    """Why a plugin that says that it was written for another version of the hooks cannot be used."""
    built_for = getattr(plugin, "FTK_HOOK_VERSION", hookspecs.HOOK_VERSION)
    if built_for != hookspecs.HOOK_VERSION:
        yield f"it was written for version {built_for} of the hooks, and this ftk has version {hookspecs.HOOK_VERSION}"


def _odd_names(plugin: Any) -> Iterator[str]:
    """What looks like a hook and is none: a misspelt name, a forgotten marker."""
    for name in dir(plugin):
        value = getattr(plugin, name, None)
        if not inspect.isroutine(value):
            continue
        marked = hasattr(value, "ftk_impl")
        if inspect.ismodule(plugin) and not marked and value.__module__ != plugin.__name__:
            continue
        if name in HOOKS and not marked:
            yield f"`{name}` is not marked with @ftk.hookimpl"
        elif name not in HOOKS and (marked or name.startswith("ftk_")):
            yield f"`{name}` is no hook; {did_you_mean(name, HOOKS)}"


def _owner(point: EntryPoint) -> tuple[str, str]:
    return (point.dist.name, point.dist.version) if point.dist else ("unknown", "")


def _order(point: EntryPoint) -> tuple[bool, str, str]:
    return (_owner(point)[0] != OWN_DISTRIBUTION, canonical(_owner(point)[0]), point.name)
