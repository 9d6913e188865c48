"""Makes stages of a template and a list of values, before a recipe is read: what reads it sees ordinary stages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import Field

from ftk.errors import Problem, UserError, did_you_mean
from ftk.plugin.options import Options
from ftk.recipe.complaints import show, validate
from ftk.recipe.levels import PART_NAME
from ftk.recipe.origins import SEQUENCE as KEY
from ftk.recipe.origins import Made, Unrolled
from ftk.recipe.overrides import STAGE_KEYS, part_name, steps_of
from ftk.recipe.templates import PLACEHOLDER, fill, in_a_name, placeholders

MOST = 1000
"""The most stages that one sequence makes: each is read, checked and shown by itself."""
TEMPLATE_KEYS = tuple(key for key in STAGE_KEYS if key not in ("name", KEY))
"""What of a stage can be different under each value."""
NUMBER = "number"
"""What names of stages may say beside keys of the values: how many values came until this one."""


class SequenceOptions(Options):
    """What ``[sequence]`` may say."""

    values: tuple[Any, ...] = Field(
        min_length=1,
        max_length=MOST,
        description="One for each stage, in order: what takes the place of `{value}` in the template. Or tables, all "
        "with the same keys: `{topic}` is then what stands under `topic`.",
    )
    name: str = Field(
        default="{value}",
        min_length=1,
        description="The names of the stages; `{number}` counts them from 1. With tables it must be written.",
    )


def before_unrolling(table: Mapping[str, Any], settings: Sequence[str]) -> tuple[list[str], list[str]]:
    """Settings that change what a recipe writes, templates too, and those that change one of its stages as they run."""
    stages = table.get("stage")
    tables = stages if isinstance(stages, list) else []
    templates = {part_name(stage) for stage in tables if isinstance(stage, dict) and KEY in stage}
    early: list[str] = []
    late: list[str] = []
    for setting in settings:
        try:
            steps = steps_of(setting.partition("=")[0])
        except UserError:
            steps = []  # told where it is set
        of_a_stage = len(steps) > 1 and steps[0] == "stage" and steps[1] not in templates and steps[2:3] != [KEY]
        (late if of_a_stage else early).append(setting)
    return early, late


def unroll(table: dict[str, Any], changed: bool = False) -> Unrolled:
    """A recipe's table with stages in the place of its sequences; it is not changed itself.

    Args:
        table: the recipe as TOML gave it.
        changed: whether settings stand in it, which may have taken the place of what a value fills in.

    A sequence at the top multiplies a recipe of one stage: what depends on the values moves into the stages, the rest
    stays their default. One in a ``[[stage]]`` stands for stages in its place.
    """
    stages = table.get("stage")
    done = Unrolled({key: value for key, value in table.items() if key != KEY}, changed=changed)
    if KEY in table and "stage" in table:
        hint = 'write it into the [[stage]] that it multiplies: sequence = { values = [...] }, and "{value}" in that'
        done.problems.append(
            Problem(KEY, "stands beside [[stage]] tables, and nothing tells which it multiplies", hint)
        )
    elif KEY in table:
        template = {key: table[key] for key in TEMPLATE_KEYS if key in table}
        _unroll_top(done, table, template)
    if isinstance(stages, list):
        made: list[Any] = []
        names = {name for stage in stages if (name := _own_name(stage)) is not None}
        for number, stage in enumerate(stages, start=1):
            if isinstance(stage, dict) and KEY in stage:
                own = stage.get("name")
                known = isinstance(own, str) and PART_NAME.fullmatch(own)
                prefix = f"stage.{own if known else number}."
                if not known:
                    done.problems.append(Problem(f"{prefix}name", "is missing", 'write name = "...", for the sequence'))
                for key in stage:
                    if key not in STAGE_KEYS:
                        done.problems.append(Problem(f"{prefix}{key}", "unknown key", did_you_mean(key, STAGE_KEYS)))
                reading = _Template(prefix, {key: stage[key] for key in TEMPLATE_KEYS if key in stage}, done, names)
                made += reading.stages(stage[KEY])
                for default in TEMPLATE_KEYS:
                    for key in sorted(reading.keys & set(placeholders(table.get(default)))):
                        reason = f"holds `{{{key}}}`, and is a default of all stages, in which no value takes its place"
                        done.problems.append(
                            Problem(default, reason, f"write it at {prefix}{default}, or call the key otherwise")
                        )
            else:
                made.append(stage)
        done.table["stage"] = made
    return done


def _unroll_top(done: Unrolled, table: Mapping[str, Any], template: dict[str, Any]) -> None:
    """Turn a recipe of one stage into one of several."""
    data = template.get("data")
    if isinstance(data, dict):
        template["data"] = {key: value for key, value in data.items() if not key.startswith("retain")}
    reading = _Template("", template, done, set())
    stages = reading.stages(table[KEY], whole=False)
    for path, node in [("model", table.get("model")), *_retained(data)]:
        for key in sorted(reading.keys & set(placeholders(node))):
            reason = f"holds `{{{key}}}`, and is one for all stages of the sequence"
            done.problems.append(Problem(path, reason, "what differs between stages stands in the data of each"))
    for key in TEMPLATE_KEYS:
        if key in table and (not stages or any(key in stage for stage in stages)):
            if key != "data" or not isinstance(data, dict):
                del done.table[key]
            else:
                sets = [stage.get("data", {}) for stage in stages] or [template["data"]]
                moved = {name for each in sets for name in each}
                done.table["data"] = {name: value for name, value in data.items() if name not in moved}
    done.table["stage"] = stages


def _retained(data: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(data, dict):
        yield from ((f"data.{key}", value) for key, value in data.items() if key.startswith("retain"))


class _Template:
    """One template and the stages that values make of it.

    Args:
        prefix: its place in the recipe.
        template: its keys, without the name.
        done: takes up what is made, and what is wrong.
        names: that are taken; those of the stages are added.
    """

    def __init__(self, prefix: str, template: Mapping[str, Any], done: Unrolled, names: set[str]) -> None:
        self.prefix, self.template, self.done, self.names = prefix, template, done, names
        self.keys: set[str] = set()
        self.place = f"{prefix}{KEY}"
        self._used: set[str] = set()

    def stages(self, table: Any, whole: bool = True) -> list[dict[str, Any]]:
        """The stages, or none where the sequence is wrong; without ``whole`` they hold but what values change."""
        options = self._read(table)
        if options is None:
            return []
        rows = [value if isinstance(value, dict) else {"value": value} for value in options.values]
        self.keys = set(rows[0])
        self._used = self.keys & set(placeholders(self.template))
        self._check_use(options)
        template = self.template if whole else self._changing()
        made = []
        for number, row in enumerate(rows, start=1):
            place = f"{self.place}.values.{number}"
            own = {key: f"{place}.{key}" if isinstance(options.values[0], dict) else place for key in row}
            name = self._name(options.name, row, number, place)
            taken: dict[str, str] = {}
            stage = {key: self._filled(value, key, row, own, taken) for key, value in template.items()}
            if name:
                self.done.made.append(Made(name, self.prefix, taken))
                made.append({"name": name, **stage})
        return made

    def _read(self, table: Any) -> SequenceOptions | None:
        if not isinstance(table, dict):
            self._add("", f"must be a table, got {show(table)}", "write [sequence] and values = [...] below it")
            return None
        options, problems = validate(SequenceOptions, table, self.place)
        self.done.problems += problems
        if options is None:
            return None
        tables = [isinstance(value, dict) for value in options.values]
        if any(tables) and not all(tables):
            self._add(f"values.{tables.index(False) + 1}", "is no table, and others are", "write tables alone, or none")
            return None
        if tables[0] and not self._same_keys(options.values):
            return None
        if tables[0] and "name" not in table:
            near = next(iter(options.values[0]))
            self._add("name", "is missing", f'with tables, say what names the stages: name = "{{{near}}}"')
            return None
        return options

    def _same_keys(self, values: Sequence[Mapping[str, Any]]) -> bool:
        before = len(self.done.problems)
        keys = list(values[0])
        for key in keys:
            if not PLACEHOLDER.fullmatch(f"{{{key}}}") or key == NUMBER:
                self._add(f"values.1.{key}", "cannot be used", "a key is letters, digits and `_`, and not `number`")
        if not keys:
            self._add("values.1", "is empty", 'write { topic = "..." }, and "{topic}" where it belongs')
        for number, value in enumerate(values[1:], start=2):
            for key in [key for key in keys if key not in value]:
                self._add(
                    f"values.{number}.{key}", "is missing, and the first has it", "give every table the same keys"
                )
            for key in [key for key in value if key not in keys]:
                self._add(f"values.{number}.{key}", "is not in the first", did_you_mean(key, keys))
        return len(self.done.problems) == before

    def _check_use(self, options: SequenceOptions) -> None:
        named = set(placeholders(options.name))
        for key in sorted(named - self.keys - {NUMBER}):
            near = did_you_mean(key, [*sorted(self.keys), NUMBER])
            self._add("name", f"holds `{{{key}}}`, which is no key of the values", near)
        if not self._used:
            told = " nor ".join(f"`{{{key}}}`" for key in sorted(self.keys))
            self._add("values", f"change nothing: {told} stands nowhere in the template", "write it where they belong")
            return
        for key in [] if self.done.changed else sorted(self.keys - self._used - named):
            self._add(
                "values", f"`{{{key}}}` stands nowhere in the template", "write it where it belongs, or leave it out"
            )

    def _name(self, pattern: str, row: Mapping[str, Any], number: int, place: str) -> str:
        told = PLACEHOLDER.sub(lambda found: in_a_name({**row, NUMBER: number}.get(found[1])), pattern)
        if told in self.names:
            hint = 'let `name` tell them apart, as in name = "{number}"'
            self.done.problems.append(Problem(place, f"a second stage of the name `{told}`", hint))
        elif told == "retain":
            self.done.problems.append(
                Problem(place, "`retain` is the task of data.retain", 'write a `name`: "to-{value}"')
            )
        elif not PART_NAME.fullmatch(told) or len(told) > 100:
            hint = "up to 100 letters, digits, `_`, `-`, `.`; the first no `-` and no `.`; say it with `name`"
            self.done.problems.append(
                Problem(place, f"gives a stage the name {told!r:.60}, which cannot be used", hint)
            )
        else:
            self.names.add(told)
            return told
        return ""

    def _changing(self) -> dict[str, Any]:
        """The keys of the template that depend on the values; of data sets each by itself."""
        changing = {key: node for key, node in self.template.items() if self._depends(node)}
        if isinstance(changing.get("data"), dict):
            changing["data"] = {key: node for key, node in changing["data"].items() if self._depends(node)}
        return changing

    def _depends(self, node: Any) -> bool:
        return bool(self.keys & set(placeholders(node)))

    def _filled(
        self, node: Any, key: str, row: Mapping[str, Any], own: Mapping[str, str], taken: dict[str, str]
    ) -> Any:
        filled, problems = fill(node, (key,), row)
        taken.update({place: own[name] for place, name in filled.taken.items()})
        self.done.problems += [replace(problem, path=f"{self.prefix}{problem.path}") for problem in problems]
        return filled.node

    def _add(self, key: str, reason: str, hint: str = "") -> None:
        self.done.problems.append(Problem(f"{self.place}.{key}" if key else self.place, reason, hint))


def _own_name(stage: Any) -> str | None:
    """The name of a stage that no sequence makes."""
    name = stage.get("name") if isinstance(stage, dict) and KEY not in stage else None
    return name if isinstance(name, str) else None
