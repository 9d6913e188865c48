"""The contract of evaluators: numbers of the weights and the rows alone, and a model left as it was."""

from __future__ import annotations

import json
import math
from typing import Any, NamedTuple

from ftk.parts import Evaluator, Metric, Note
from ftk.recipe.building import build
from ftk.recipe.specs import PartSpec
from ftk.running.measuring import evaluating
from ftk.testing.subject import Subject, bearing, hold, hold_equal, seeded, snapshot


class Measured(NamedTuple):
    """What an evaluator gave."""

    metrics: list[Metric]
    notes: list[Note]


def gives_finite_numbers(subject: Subject) -> None:
    """`measure` returns the metrics that the options tell of, finite numbers; one without any gives `notes`."""
    metrics, notes = _measure(subject, _practised(subject))
    hold(all(isinstance(metric, Metric) for metric in metrics), f"it returned {metrics!r:.120}")
    hold(all(isinstance(note, Note) for note in notes), f"it returned {notes!r:.120}")
    hold(metrics or notes, "it gives neither numbers nor notes")
    for note in notes:
        hold(json.loads(json.dumps(dict(note.detail))) == note.detail, f"{note.name}: {note.detail!r:.120} is not JSON")
    for metric in metrics:
        hold(
            isinstance(metric.value, int | float),
            f"{metric.name} is a {type(metric.value).__name__}, not a number",
        )
        hold(math.isfinite(metric.value), f"{metric.name} is {metric.value}")
        hold(
            isinstance(metric.higher_is_better, bool),
            f"{metric.name}: higher_is_better must be true or false",
        )
        hold("@" not in metric.name, f"{metric.name}: `@` stands between a metric and its probe set")
    names = [metric.name for metric in metrics]
    every = [*names, *(note.name for note in notes)]
    hold(len(set(every)) == len(every), f"two metrics or notes have one name: {', '.join(every)}")
    told = subject.spec.options.metrics()
    hold(
        not told or sorted(told) == sorted(names), f"its options tell of {', '.join(told)}, it gave {', '.join(names)}"
    )


def measures_the_same_twice(subject: Subject) -> None:
    """Two measurements of one model are equal, wherever the global random generator stands."""
    model = _practised(subject)
    with seeded(1):
        one = _measure(subject, model)
    with seeded(2):
        other = _measure(subject, model)
    hold(one == other, f"{_show(one)}, and then {_show(other)}")


def does_not_depend_on_the_batch_size(subject: Subject) -> None:
    """The numbers do not depend on how many rows go through the model together."""
    model = _practised(subject)
    expected = _measure(subject, model, micro_batch_size=len(subject.rows))
    for size in (1, 3):
        _hold_close(_measure(subject, model, micro_batch_size=size), expected, f"with micro_batch_size {size}")
        if "batch_size" in type(subject.spec.options).model_fields:
            found = _measure(subject, model, {"batch_size": size})
            _hold_close(found, expected, f"with batch_size {size}")


def sees_the_weights(subject: Subject) -> None:
    """The numbers of a model that has learned some of the rows and of one that has not are different."""
    one, other = _measure(subject, _practised(subject)), _measure(subject, subject.model())
    hold(one != other, f"both give {_show(one)}; are the rows such that the metric can tell them apart?")


def leaves_the_model_as_it_was(subject: Subject) -> None:
    """Measuring changes neither weights, flags, hooks, modes nor the settings for generation."""
    model = _practised(subject)
    before = {**snapshot(model), **_settings(model)}
    _measure(subject, model)
    hold_equal(before, {**model.state_dict(), **_settings(model)}, "changed by measuring")


def _practised(subject: Subject) -> Any:
    model = subject.model()
    model.load_state_dict(subject.practised)
    return model.eval()


def _measure(
    subject: Subject, model: Any, options: dict[str, Any] | None = None, micro_batch_size: int = 4
) -> Measured:
    spec = subject.spec
    if options:
        spec = PartSpec(
            spec.kind,
            spec.use,
            spec.name,
            spec.options.model_copy(update=options),
            spec.variant,
            spec.distribution,
            spec.path,
        )
    evaluator = build(spec, Evaluator)
    assert isinstance(evaluator, Evaluator)
    objective = subject.companion("objective")
    ctx = subject.context(model, objective, micro_batch_size=micro_batch_size)
    with evaluating(model):
        before, task = bearing(model), subject.task("toy", objective)
        found = Measured(evaluator.measure(model, task, ctx), evaluator.notes(model, task, ctx))
        hold_equal(before, bearing(model), "changed by measuring")
    return found


def _settings(model: Any) -> dict[str, object]:
    """What a model says of itself, as JSON text."""
    configs = {name: getattr(model, name, None) for name in ("config", "generation_config")}
    return {name: config.to_json_string() for name, config in configs.items() if config is not None}


def _show(found: Measured) -> str:
    numbers = [f"{metric.name} {metric.value:.6g}" for metric in found.metrics]
    return ", ".join([*numbers, *(f"{note.name} {note.detail!r:.200}" for note in found.notes)])


def _hold_close(one: Measured, other: Measured, what: str) -> None:
    same = one.notes == other.notes and [m.name for m in one.metrics] == [m.name for m in other.metrics]
    same = same and all(
        math.isclose(a.value, b.value, rel_tol=1e-4, abs_tol=1e-6)
        for a, b in zip(one.metrics, other.metrics, strict=True)
    )
    hold(same, f"{what}: {_show(one)}; all rows together: {_show(other)}")


CLAUSES = (
    gives_finite_numbers,
    measures_the_same_twice,
    does_not_depend_on_the_batch_size,
    sees_the_weights,
    leaves_the_model_as_it_was,
)
