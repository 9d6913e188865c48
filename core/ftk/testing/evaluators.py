"""The contract of evaluators: numbers of the weights and the rows alone, and a model left as it was."""

from __future__ import annotations

import math
from typing import Any

from ftk.parts import Evaluator, Metric
from ftk.recipe.building import build
from ftk.recipe.specs import PartSpec
from ftk.running.measuring import evaluating
from ftk.testing.subject import Subject, bearing, hold, hold_equal, seeded, snapshot


def gives_finite_numbers(subject: Subject) -> None:
    """`measure` returns the metrics that the options tell of: each a finite number, and whether higher is better."""
    metrics = _measure(subject, _practised(subject))
    hold(metrics and all(isinstance(metric, Metric) for metric in metrics), f"it returned {metrics!r:.120}")
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
    hold(len(set(names)) == len(names), f"two metrics have one name: {', '.join(names)}")
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
) -> list[Metric]:
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
        before = bearing(model)
        found = evaluator.measure(model, subject.task("toy", objective), ctx)
        hold_equal(before, bearing(model), "changed by measuring")
    return found


def _settings(model: Any) -> dict[str, object]:
    """What a model says of itself, as JSON text."""
    configs = {name: getattr(model, name, None) for name in ("config", "generation_config")}
    return {name: config.to_json_string() for name, config in configs.items() if config is not None}


def _show(metrics: list[Metric]) -> str:
    return ", ".join(f"{metric.name} {metric.value:.6g}" for metric in metrics)


def _hold_close(one: list[Metric], other: list[Metric], what: str) -> None:
    same = [metric.name for metric in one] == [metric.name for metric in other] and all(
        math.isclose(a.value, b.value, rel_tol=1e-4, abs_tol=1e-6) for a, b in zip(one, other, strict=True)
    )
    hold(same, f"{what}: {_show(one)}; all rows together: {_show(other)}")


CLAUSES = (
    gives_finite_numbers,
    measures_the_same_twice,
    does_not_depend_on_the_batch_size,
    sees_the_weights,
    leaves_the_model_as_it_was,
)
