"""Options of interpolation that act together, and what it needs by the method it is given."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from ftk import UserError
from ftk.recipe.levels import Reader
from ftk_plugins.mitigations.interpolation.interpolation import Interpolation
from ftk_plugins.mitigations.interpolation.options import InterpolationOptions
from tests.plugins.mitigations.test_interpolation_methods import REGISTRY, interpolation


@pytest.mark.parametrize(
    "wrong",
    [
        {"decay": 0.9}, {"decay": 0.9, "trained_weights": "average"}, {"begin": 0.5, "trained_weights": "ema"},
        {"every": 2}, {"samples": 10}, {"samples": 10, "method": "ties"},
    ],
)  # fmt: skip
def test_options_that_say_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="says nothing unless"):
        InterpolationOptions(**wrong)


def test_a_third_partys_method_without_importances_is_asked_when_it_is_built() -> None:
    mitigation = Interpolation(InterpolationOptions(method="magmax", samples=10))
    with pytest.raises(UserError, match="says nothing to a method that needs no importances"):
        mitigation.take({"method": interpolation(method="ties")._method})


def test_needs_are_those_of_the_method() -> None:
    def needs(**options: Any) -> tuple[set[str], bool]:
        spec = Reader(REGISTRY).part("mitigation", {"use": "interpolation", **options}, "mitigation.interpolation")
        assert spec is not None
        return set(spec.needs()), "sharding" in spec.provides()

    assert needs() == ({"weight-scale"}, True)
    assert needs(method="lines") == ({"layer-scale"}, True)
    assert needs(method="ties") == ({"weight-set"}, False)
    assert needs(trained_weights="ema") == ({"weight-scale", "weight-set", "weight-drift"}, True)
    assert needs(method="fisher", trained_weights="ema")[1]
    assert needs(method="ema")[0] == {"several-models"}
    reader = Reader(REGISTRY)
    assert reader.part("mitigation", {"use": "interpolation", "method": {"use": "ties", "density": 3}}, "it") is None
    assert reader.part("mitigation", {"use": "interpolation", "method": "tis"}, "it") is None
    told = [f"{problem.path}: {problem.reason} {problem.hint}" for problem in reader.problems]
    assert told == [
        "it.method.density: must be at most 1, got 3 ",
        "it.method.use: unknown merge `tis` did you mean `ties`?",
    ]
