"""From the data sets that a recipe names to the rows of each role."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ftk.data.cache import Cache, key_of
from ftk.data.combining import Combined, open_source
from ftk.data.encoding import Encoder
from ftk.data.keys import part_key
from ftk.data.roles import RoleRows, Step, keep, read_kept
from ftk.data.steps import Chain, Tested, texts_in, told
from ftk.errors import UserError
from ftk.parts import DatasetSource, Effect, Evaluator, Examples, Objective, Split, StartingModel, Task
from ftk.recipe.building import build
from ftk.recipe.naming import member_of
from ftk.recipe.sampled import TRAINED
from ftk.recipe.specs import DataSpec, PartSpec

if TYPE_CHECKING:
    from datasets import Dataset

AnySource = DatasetSource | Combined


@dataclass(frozen=True)
class Rows:
    """The rows of one task by role, not yet encoded.

    Attributes:
        task: its name.
        objective: reads them.
        spec: what the objective was built from.
        roles: ``train``, and ``validation`` and ``test`` where there are such rows.
        probes: further test sets by name.
        passes: how often an epoch goes over the training rows; see :class:`ftk.parts.Task`.
    """

    task: str
    objective: Objective
    spec: PartSpec
    roles: Mapping[str, RoleRows]
    probes: Mapping[str, RoleRows] = field(default_factory=dict)
    passes: float = 1.0

    @property
    def member(self) -> str:
        """The task's name in its stage, where that teaches several; else nothing."""
        return member_of(self.task)

    def to_choose_by(self) -> Rows:
        """The same task, measured on its validation rows in place of its test rows, and on no probes.

        Raises:
            UserError: it has none.
        """
        if "validation" not in self.roles:
            key = "data.retain_validation" if self.task == "retain" else "data.validation"
            raise UserError(f"task `{self.task}` has no validation rows to choose by", f"add {key}")
        return replace(self, roles={**self.roles, "test": self.roles["validation"]}, probes={})

    def texts(self) -> Iterator[str]:
        """The plain texts of the training rows."""
        for texts in texts_in(self.roles["train"], self.objective):
            yield from texts

    def task_with(self, processor: Any, evaluators: tuple[Evaluator, ...], encoder: Encoder) -> Task:
        """The task, with a processor to encode it."""

        roles = {role: self.examples(found, processor, encoder) for role, found in self.roles.items()}
        probes = {name: self.examples(found, processor, encoder) for name, found in self.probes.items()}
        return Task(self.task, self.objective, probes=probes, evaluators=evaluators, passes=self.passes, **roles)

    def examples(self, found: RoleRows, processor: Any, encoder: Encoder) -> Examples:
        """Some rows as the task's objective reads them."""
        encode = partial(encoder.encoded, found, self.spec, self.objective, processor)
        return Examples(found.rows, self.objective, processor, found.place, encode)


@dataclass(frozen=True)
class Asked:
    """What a recipe says of one task's rows.

    Attributes:
        task: its name.
        objective: reads them.
        spec: what the objective was built from.
        data: the data sets.
    """

    task: str
    objective: Objective
    spec: PartSpec
    data: DataSpec


class RowReader:
    """Reads the rows of roles; those of a source that knows what they depend on, once for all runs.

    Args:
        cache: where rows are kept.
        starting: the starting model, for sources that take rows from it.
    """

    def __init__(self, cache: Cache, starting: StartingModel | None = None) -> None:
        self._cache = cache
        self._starting = starting

    def tasks(self, asked: Sequence[Asked], beside: Sequence[Tested] = ()) -> list[Rows]:
        """The rows of every task; a validation or test set that is not named comes from the train source's own split.

        Test sets are read first: a transform of training rows may ask for those of all tasks, and for those ``beside``.
        """
        sources = [open_source(one.data.train) for one in asked]
        measured = [self._measured(one.data, source) for one, source in zip(asked, sources, strict=True)]
        tests = [
            Tested(found, one.objective, one.spec)
            for one, (roles, probes) in zip(asked, measured, strict=True)
            for found in [*roles.values(), *probes.values()]
        ]
        tests += beside
        rows = []
        for one, source, (roles, probes) in zip(asked, sources, measured, strict=True):
            found = {"train": self.read(one.data.train, "train", source, tests)}
            found |= self._role("validation", one.data.validation, one.data.train, source)
            rows.append(Rows(one.task, one.objective, one.spec, {**found, **roles}, probes))
        return rows

    def of_evaluators(self, evaluators: Iterable[PartSpec]) -> list[Tested]:
        """The data sets that evaluators measure in place of a task's test rows."""
        return [
            Tested(self.read(part, "test"), build(spec, Evaluator), spec)
            for spec in evaluators
            for part in spec.parts
            if part.name == "data"
        ]

    def read(
        self, spec: PartSpec, split: Split, source: AnySource | None = None, tests: Sequence[Tested] = ()
    ) -> RoleRows:
        """The rows of one data set with its transforms applied.

        Args:
            spec: the data set.
            split: the role they are for.
            source: what ``spec`` builds, where it was built.
            tests: the recipe's test sets, for transforms that ask for them.

        Raises:
            UserError: no rows are left, or the source or a transform says what is wrong.
        """
        return self._read(spec, split, source or open_source(spec), Chain(spec.transforms, tests))

    def _read(self, spec: PartSpec, split: Split, source: AnySource, chain: Chain) -> RoleRows:
        if isinstance(source, Combined):
            return self._mixed(spec, split, source, chain)
        with told(spec):
            if TRAINED in spec.needs() and self._starting is not None:
                source.see_model(self._starting)
            identity = source.identity()
        return self._kept(spec, split, identity, lambda: source.rows(split), chain, source.effects)

    def _mixed(self, spec: PartSpec, split: Split, source: Combined, chain: Chain) -> RoleRows:
        """The rows of a data set made of others, each read like one of its own."""
        parts = {
            part.name: self._read(part, split, source.sources[part.name], chain.of_part(part.transforms))
            for part in source.having(split)
        }
        order, shares = source.order(parts, split)
        known = all(found.known_key for found in parts.values())
        identity = key_of([[name, found.known_key] for name, found in parts.items()]) if known else None
        found = self._kept(spec, split, identity, lambda: source.rows(parts, order), chain)
        return replace(found, shares=shares)

    def _kept(
        self,
        spec: PartSpec,
        split: Split,
        identity: str | None,
        rows_of_source: Callable[[], Dataset],
        chain: Chain,
        effects_of_source: Callable[[], Sequence[Effect]] = tuple,
    ) -> RoleRows:
        """The rows of one data set and what they went through, from the cache where it is known what they depend on."""

        def read() -> tuple[Dataset, tuple[Step, ...]]:
            with told(spec):
                rows = rows_of_source()
                effects = tuple(effects_of_source())
            if len(rows) == 0:
                why = "; ".join(f"{effect.rows} {effect.reason}" for effect in effects)
                hint = "look at the source's options: limits, filters, fractions"
                raise UserError(f"{spec.path}: there are no rows{f': {why}' if why else ''}", hint)
            gone = sum({"dropped": effect.rows, "made": -effect.rows}.get(effect.fate, 0) for effect in effects)
            own = (Step(spec.path, spec.name, len(rows) + gone, len(rows), effects),) if effects else ()
            rows, steps = chain.apply(rows)
            return rows, (*own, *steps)

        if identity is None:
            rows, steps = read()
            return RoleRows(rows, spec.path, steps=steps)
        key = key_of("rows", identity, split, part_key(spec), chain.key())
        found = read_kept(self._cache.entry(key, lambda folder: keep(*read(), folder)), spec.path)
        return replace(found, steps=chain.placed(spec, found.steps))

    def _measured(self, data: DataSpec, source: AnySource) -> tuple[dict[str, RoleRows], dict[str, RoleRows]]:
        """The test rows of a task, if there are some, and its probes."""
        probes = {name: self.read(spec, "test") for name, spec in data.probes.items()}
        return self._role("test", data.test, data.train, source), probes

    def _role(self, split: Split, own: PartSpec | None, train: PartSpec, source: AnySource) -> dict[str, RoleRows]:
        """The rows of a role that has a data set of its own, or that the train source keeps back; or none."""
        if own is not None:
            return {split: self.read(own, split)}
        if split in source.splits():
            return {split: self._read(train, split, source, Chain(train.transforms, kept_back=True))}
        return {}
