"""A recipe that has been read: frozen values that say which parts a run builds, with which options."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ftk.plugin.options import Options
from ftk.plugin.variant import Variant
from ftk.recipe.training import Training


@dataclass(frozen=True)
class PartSpec:
    """One part that the recipe names.

    Attributes:
        kind: one of :data:`ftk.plugin.variant.KINDS`.
        use: what the recipe wrote.
        name: under which it is reported; the variant's name where the recipe gives none.
        options: validated, with defaults filled in.
        variant: the variant that ``use`` named.
        distribution: the package that offers it.
        path: the place in the recipe, as in ``stage.currencies.adaptation``.
        transforms: for a data set, what its rows go through, in order.
        parts: for a data set or an objective made of others, these, and for an evaluator the data sets among its
            options, for a mitigation the methods of merging there; each by its name.
    """

    kind: str
    use: str
    name: str
    options: Options
    variant: Variant
    distribution: str
    path: str
    transforms: tuple[PartSpec, ...] = ()
    parts: tuple[PartSpec, ...] = ()

    def provides(self) -> frozenset[str]:
        """The capabilities that it gives to the others under these options.

        A data set made of others gives those that one of them gives, an objective those that all of them give, and a
        mitigation those of its own that its methods of merging give too.
        """
        own = frozenset(self.variant.provides) - frozenset(self.options.withheld())
        given = [part.provides() for part in self.parts]
        match self.kind:
            case "dataset" if given:
                return own & frozenset().union(*given)
            case "mitigation" if given:
                return own & frozenset.intersection(*given)
            case "objective" if given:
                return own | frozenset.intersection(*given)
        return own

    def needs(self) -> tuple[str, ...]:
        """The capabilities that it needs under these options, of a mitigation those of its methods among them."""
        inside = [name for part in self.parts for name in part.needs()] if self.kind == "mitigation" else []
        return tuple(dict.fromkeys((*self.variant.needs, *self.options.more_needs(), *inside)))

    def all_transforms(self) -> tuple[PartSpec, ...]:
        """Its own transforms and those of its parts."""
        return (*self.transforms, *(transform for part in self.parts for transform in part.all_transforms()))

    def metrics(self) -> tuple[str, ...]:
        """For an evaluator, the names under which its metrics are reported; empty where they are not known yet."""
        own = self.options.metrics()
        if self.name == self.variant.name:
            return own
        return (self.name,) if len(own) == 1 else tuple(f"{self.name}.{metric}" for metric in own)

    def resolved(self) -> dict[str, Any]:
        """Everything that decides what it does, as JSON values."""
        table: dict[str, Any] = {
            "use": self.variant.name,
            "distribution": self.distribution,
            "name": self.name,
            "options": self.options.model_dump(mode="json"),
        }
        if self.transforms:
            table["transform"] = [transform.resolved() for transform in self.transforms]
        if self.parts and self.kind in ("dataset", "objective"):
            # The tables of its parts stand resolved beside its options; left there is what it says of them itself.
            key, written = parts_written(self.options)
            table["options"][key] = {
                name: {option: value for option, value in part.items() if option not in written[name]}
                for name, part in table["options"][key].items()
            }
            table[key] = {part.name: part.resolved() for part in self.parts}
        elif self.parts:
            table["options"].update({part.name: part.resolved() for part in self.parts})
        return table


def parts_written(options: Options) -> tuple[str, Mapping[str, Mapping[str, Any]]]:
    """The option under which a recipe writes the tables of what something is made of, and these tables by name."""
    return ("tasks", options.objectives()) if options.objectives() else ("parts", options.data_sets())


@dataclass(frozen=True)
class DataSpec:
    """The rows of a stage by role; what is None may still come from the train source's own splits."""

    train: PartSpec
    validation: PartSpec | None = None
    test: PartSpec | None = None
    probes: Mapping[str, PartSpec] = field(default_factory=dict)
    overlap: str = "warn"

    def resolved(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            **{role: _resolved(getattr(self, role)) for role in ("train", "validation", "test")},
            "probes": {name: spec.resolved() for name, spec in self.probes.items()},
            "overlap": self.overlap,
        }


@dataclass(frozen=True)
class StageSpec:
    """One stage: what it teaches, how, and what guards the knowledge that was there before."""

    name: str
    objective: PartSpec
    adaptation: PartSpec
    data: DataSpec
    mitigations: tuple[PartSpec, ...]
    evaluators: tuple[PartSpec, ...]
    training: Training

    def resolved(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "name": self.name,
            "objective": self.objective.resolved(),
            "adaptation": self.adaptation.resolved(),
            "data": self.data.resolved(),
            "mitigations": [spec.resolved() for spec in self.mitigations],
            "evaluators": [spec.resolved() for spec in self.evaluators],
            "training": self.training.model_dump(mode="json"),
        }


@dataclass(frozen=True)
class Recipe:
    """A whole recipe, checked.

    Attributes:
        name: of the run and its folder.
        seed: of everything that is random in it.
        model: where the starting model comes from.
        retain: what the starting model knows and must not forget; None where the recipe does not say.
        retain_validation: rows of it for choices made during a run.
        retain_test: rows of it that are measured.
        retain_objective: the objective that reads these rows.
        retain_evaluators: what is measured on ``retain_test``.
        stages: in order; at least one.
        source: where the recipe was read from, for messages.
        text: the recipe as it was written.
        notes: what a reader of the recipe may not expect.
    """

    name: str
    seed: int
    model: PartSpec
    retain: PartSpec | None
    retain_validation: PartSpec | None
    retain_test: PartSpec | None
    retain_objective: PartSpec
    retain_evaluators: tuple[PartSpec, ...]
    stages: tuple[StageSpec, ...]
    source: str
    text: str
    notes: tuple[str, ...] = ()

    def resolved(self) -> dict[str, Any]:
        """Everything that decides what a run does, defaults included, as JSON values."""
        retained: dict[str, Any] | None = None
        if self.retain is not None:
            retained = {
                "objective": self.retain_objective.resolved(),
                "train": self.retain.resolved(),
                "validation": _resolved(self.retain_validation),
                "test": _resolved(self.retain_test),
                "evaluators": [spec.resolved() for spec in self.retain_evaluators],
            }
        return {
            "name": self.name,
            "seed": self.seed,
            "model": self.model.resolved(),
            "retain": retained,
            "stages": [stage.resolved() for stage in self.stages],
        }

    def retained_data(self) -> DataSpec | None:
        """The data sets of the task ``retain``, if there is one; its overlap is the first stage's."""
        if self.retain is None:
            return None
        overlap = self.stages[0].data.overlap
        return DataSpec(self.retain, self.retain_validation, self.retain_test, overlap=overlap)

    @cached_property
    def sha256(self) -> str:
        """Of :meth:`resolved`: two recipes that run the same have the same, however they are written."""
        canonical = json.dumps(self.resolved(), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(canonical.encode()).hexdigest()


def _resolved(spec: PartSpec | None) -> dict[str, Any] | None:
    return None if spec is None else spec.resolved()
