"""Reads one level of a recipe, its top or one stage: tables become parts, and every mistake a problem."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from ftk.errors import Problem, UserError, did_you_mean
from ftk.plugin.options import Options
from ftk.plugin.registry import RESERVED_KEYS, Registry, article, one_line
from ftk.recipe.complaints import show, validate
from ftk.recipe.overrides import merge_training, part_name
from ftk.recipe.specs import PartSpec
from ftk.recipe.training import Training

DATA_KEYS = ("train", "validation", "test", "probes", "overlap")
RETAIN_KEYS = ("retain", "retain_validation", "retain_test")
OVERLAPS = ("warn", "allow", "error")
PART_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


@dataclass
class Level:
    """What stands at the top of a recipe, or holds in one stage after the defaults are merged in.

    A key that is there with None was written and is wrong; a key that is not there was not written.
    """

    tables: dict[str, dict[str, Any]] = field(default_factory=dict)
    parts: dict[str, PartSpec | None] = field(default_factory=dict)
    data: dict[str, PartSpec | None] = field(default_factory=dict)
    probes: dict[str, PartSpec | None] = field(default_factory=dict)
    overlap: str = "warn"
    mitigations: tuple[PartSpec, ...] = ()
    evaluators: tuple[PartSpec, ...] = ()
    training: Training | None = None


class Reader:
    """Turns tables into parts; gathers problems and goes on."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.problems: list[Problem] = []

    def add(self, path: str, reason: str, hint: str = "") -> None:
        """Note a problem."""
        self.problems.append(Problem(path, reason, hint))

    def keys(
        self,
        table: Mapping[str, Any],
        prefix: str,
        valid: Sequence[str],
        hints: Mapping[str, str] | None = None,
    ) -> None:
        """Note every key that is not valid here; ``hints`` say where one belongs that is valid elsewhere."""
        for key in table:
            if key not in valid:
                self.add(f"{prefix}{key}", "unknown key", (hints or {}).get(key) or did_you_mean(key, valid))

    def level(self, table: Mapping[str, Any], prefix: str, defaults: Level | None) -> Level:
        """Read a level's parts, data, lists and training over the defaults."""
        base = defaults or Level()
        level = Level(
            dict(base.tables), dict(base.parts), dict(base.data), dict(base.probes), base.overlap,
            base.mitigations, base.evaluators, base.training,
        )  # fmt: skip
        for kind in ("objective", "adaptation"):
            if kind in table:
                self._merged_part(level, base, kind, table[kind], f"{prefix}{kind}")
        if "data" in table:
            self._data(level, table["data"], f"{prefix}data", defaults is not None)
        for kind in ("mitigation", "evaluator"):
            if kind in table:
                parts = self.parts(kind, table[kind], f"{prefix}{kind}")
                setattr(level, f"{kind}s", parts)
        if "training" in table:
            self._training(level, base, table["training"], f"{prefix}training")
        return level

    def part(
        self,
        kind: str,
        table: Any,
        path: str,
        own: frozenset[str] | None = None,
        keys: Sequence[str] | None = None,
    ) -> PartSpec | None:
        """Read one part's table: ``use``, perhaps ``name``, and the options of the variant.

        Args:
            kind: what it must be.
            table: as TOML gave it.
            path: its place.
            own: of a table merged into a default that is wrong itself, the keys that were written here; only
                their problems are noted, the others are noted where the default stands.
            keys: what may stand there beside the options, where that is not what stands in every such table.
        """
        if not isinstance(table, dict):
            self._not_a_table(kind, table, path)
            return None
        use, name = table.get("use"), table.get("name")
        before = len(self.problems)
        if not isinstance(use, str):
            if own is None:
                what = "is missing" if use is None else f"must be text, got {show(use)}"
                self.add(f"{path}.use", what, f'write use = "..."; {self.choices(kind)}')
            return None
        if name is not None and not (isinstance(name, str) and PART_NAME.fullmatch(name)):
            self.add(f"{path}.name", f"{show(name)} cannot be used", "use letters, digits, `_`, `-` and `.`")
        through = self._transforms(table, path) if kind == "dataset" else ()
        try:
            entry = self.registry.find(kind, use)
            model = entry.options_class()
        except UserError as error:
            if own is None:
                self.add(f"{path}.use", error.message, error.hint)
            return None
        given = {key: value for key, value in table.items() if key not in RESERVED_KEYS[kind]}
        valid = RESERVED_KEYS[kind] if keys is None else keys
        options = self._options(model, given, path, valid, own, f"{entry.distribution}/{use}")
        inside = self._inside(options, kind, path) if options is not None else ()
        if options is None or len(self.problems) > before:
            return None
        return PartSpec(
            kind, use, name or entry.variant.name, options, entry.variant, entry.distribution, path, through, inside
        )

    def choices(self, kind: str) -> str:
        """The names of the variants of a kind, as a sentence."""
        names = sorted({entry.variant.name for entry in self.registry.entries(kind)})
        return f"{article(kind)} is one of: {', '.join(names)}" if names else f"no plugin here offers {article(kind)}"

    def parts(self, kind: str, value: Any, path: str) -> tuple[PartSpec, ...]:
        """Read a list of parts; two with one name are a problem."""
        if not isinstance(value, list):
            hint = f"write [[{kind}]], or {kind} = [] for none"
            self.add(path, f"must be a list of tables, got {show(value)}", hint)
            return ()
        found: dict[str, PartSpec] = {}
        names = [part_name(table) for table in value]
        for number, (table, name) in enumerate(zip(value, names, strict=True), start=1):
            label = name if names.count(name) == 1 and PART_NAME.fullmatch(name) else number
            spec = self.part(kind, table, f"{path}.{label}")
            if spec is not None and spec.name in found:
                hint = f'give one of them another name: name = "{spec.name}-2"'
                self.add(spec.path, f"two {kind}s have the name `{spec.name}`", hint)
            elif spec is not None:
                found[spec.name] = spec
        return tuple(found.values())

    def _not_a_table(self, kind: str, value: Any, path: str) -> None:
        key = path.rpartition(".")[2]
        hint = 'write { use = "..." }'
        if isinstance(value, str):
            variants = {entry.variant.name for entry in self.registry.entries(kind)}
            is_path = kind == "dataset" and value not in variants
            text = json.dumps(value, ensure_ascii=False)
            table = f'{{ use = "...", path = {text} }}' if is_path else f"{{ use = {text} }}"
            hint = f"write {table}" if key.isdecimal() else f"write {key} = {table}"
        elif isinstance(value, list) and kind != "dataset":
            hint = f"there is one {key}: write [{key}], with single brackets"
        self.add(path, f"must be a table, got {show(value)}", hint)

    def _transforms(self, table: Mapping[str, Any], path: str) -> tuple[PartSpec, ...]:
        value = table.get("transform", [])
        if not isinstance(value, list):
            self.add(f"{path}.transform", f"must be a list of tables, got {show(value)}", 'write [{ use = "..." }]')
            return ()
        read = [self.part("transform", item, f"{path}.transform.{n}") for n, item in enumerate(value, start=1)]
        return tuple(spec for spec in read if spec is not None)

    def _inside(self, options: Options, kind: str, path: str) -> tuple[PartSpec, ...]:
        """The data sets or methods of merging among a part's options, or the objectives of which one is made."""
        below = {"dataset": f"{path}.parts", "evaluator": path, "objective": f"{path}.tasks", "mitigation": path}
        inner = {"objective": "objective", "mitigation": "merge"}.get(kind, "dataset")
        tables = {"objective": options.objectives, "mitigation": options.merges}.get(kind, options.data_sets)()
        read = []
        for name, table in tables.items() if kind in below else ():
            place = f"{below[kind]}.{name}"
            if not PART_NAME.fullmatch(name):
                self.add(place, f"the name {name!r} cannot be used", "use letters, digits, `_`, `-` and `.`")
            elif "name" in table:
                self.add(f"{place}.name", f"its name is `{name}`, under which it stands", "leave it out")
            else:
                holders = getattr(options, below[kind].removeprefix(f"{path}."), None)
                beside = type(holders[name]).model_fields if isinstance(holders, dict) else ()
                keys = [*(key for key in RESERVED_KEYS[inner] if key != "name"), *beside]
                read.append(self.part(inner, {**table, "name": name}, place, keys=keys))
        return tuple(spec for spec in read if spec is not None)

    def _options(
        self,
        model: type[Options],
        given: Mapping[str, Any],
        path: str,
        reserved: Sequence[str],
        own: frozenset[str] | None,
        who: str,
    ) -> Options | None:
        try:
            options, problems = validate(model, given, path, reserved)
            if options is not None:
                # Whatever these raise is told now, and not in the middle of a run.
                options.withheld(), options.more_needs(), options.metrics(), options.data_share()
                options.earlier_tasks(), options.data_sets(), options.objectives(), options.merges()
        except Exception as error:
            self.add(path, f"the options of `{who}` failed: {one_line(error)}", "this is a mistake of the plugin")
            return None
        for problem in problems:
            key = problem.path.removeprefix(path).lstrip(".").partition(".")[0]
            if own is None or key in own or not key:
                self.problems.append(problem)
        return options

    def _merged_part(self, level: Level, base: Level, kind: str, value: Any, path: str) -> None:
        """An own ``use`` starts afresh; a table without one changes the default's options."""
        own: frozenset[str] | None = None
        table = value
        if isinstance(value, dict) and "use" not in value and kind in base.tables:
            table = {**base.tables[kind], **value}
            own = frozenset(value) if base.parts.get(kind) is None else None
        if isinstance(table, dict):
            level.tables[kind] = table
        level.parts[kind] = self.part(kind, table, path, own)

    def _data(self, level: Level, value: Any, path: str, in_stage: bool) -> None:
        if not isinstance(value, dict):
            self.add(path, f"must be a table, got {show(value)}", "write [data] and train = { use = ... } below it")
            return
        valid = DATA_KEYS if in_stage else (*DATA_KEYS, *RETAIN_KEYS)
        hints = dict.fromkeys(RETAIN_KEYS, "it stands outside the stages, in the [data] at the top of the recipe")
        self.keys(value, f"{path}.", valid, hints if in_stage else None)
        for key, table in value.items():
            if key in valid and key not in ("probes", "overlap"):
                level.data[key] = self.part("dataset", table, f"{path}.{key}")
        probes = value.get("probes", {})
        if not isinstance(probes, dict):
            self.add(
                f"{path}.probes",
                f"must be a table, got {show(probes)}",
                "write [data.probes] name = { use = ... }",
            )
        elif "probes" in value:
            level.probes = {}
            for name, table in probes.items():
                if not PART_NAME.fullmatch(name):
                    hint = "use letters, digits, `_`, `-` and `.`"
                    self.add(f"{path}.probes", f"the name {name!r} cannot be used", hint)
                level.probes[name] = self.part("dataset", table, f"{path}.probes.{name}")
        overlap = value.get("overlap", level.overlap)
        if overlap not in OVERLAPS:
            reason = f"must be 'warn', 'allow' or 'error', got {show(overlap)}"
            self.add(f"{path}.overlap", reason)
        else:
            level.overlap = cast(str, overlap)

    def _training(self, level: Level, base: Level, value: Any, path: str) -> None:
        if not isinstance(value, dict):
            self.add(path, f"must be a table, got {show(value)}", "write [training]")
            return
        default = base.tables.get("training", {})
        level.tables["training"] = merged = merge_training(default, value)
        own = frozenset(value) if default and base.training is None else None
        level.training = cast(Training | None, self._options(Training, merged, path, (), own, "training"))
