"""`agem` against the projection and the quadratic program of its papers, worked out by numpy and by trying all."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ftk.parts import Gradients
from ftk.testing import toy_context, toy_model, toy_rows, toy_task
from ftk_plugins.mitigations.agem.agem import least_push
from tests.core.loops import build
from tests.two_tasks import run, stream

Vectors = list[np.ndarray]


def given(seed: int, tasks: int, against: float) -> tuple[nn.Module, Gradients, np.ndarray, Vectors]:
    """A small model whose step and references are drawn; with ``against`` below 0 the step works against the mean."""
    random = np.random.default_rng(seed)
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    gradients = Gradients(model)
    size = sum(p.numel() for p in model.parameters())
    references = [random.normal(size=size) for _ in range(tasks)]
    own = random.normal(size=size) + against * sum(references)

    def fill(vector: np.ndarray) -> None:
        for parameter, piece in zip(
            model.parameters(), np.split(vector, np.cumsum([p.numel() for p in model.parameters()])[:-1]), strict=True
        ):
            parameter.grad = torch.tensor(piece, dtype=torch.float32).view_as(parameter)

    for number, reference in enumerate(references):
        fill(reference)
        gradients.keep(f"task{number}")
    fill(own)
    return model, gradients, own, references


def flat(gradients: Gradients) -> np.ndarray:
    return torch.cat([gradient.flatten() for gradient in gradients.values()]).double().numpy()


@pytest.mark.parametrize("against", [-1.0, 1.0])
@pytest.mark.parametrize("tasks", [1, 3])
def test_a_step_against_the_mean_of_the_references_loses_that_part_alone(tasks: int, against: float) -> None:
    model, gradients, own, references = given(0, tasks, against)
    part = build("mitigation", "agem")
    part.edit_gradients(gradients, toy_context(model, None))
    mean = np.mean(references, axis=0)
    inner = own @ mean
    assert (inner < 0) == (against < 0)
    expected = own - min(0.0, inner) / (mean @ mean) * mean
    np.testing.assert_allclose(flat(gradients), expected, atol=1e-5)
    by_task = {f"task{n}": float(own @ reference < 0) for n, reference in enumerate(references)}
    assert part.report() == {"rows": {}, "conflicts": float(inner < 0), "conflicts_by_task": by_task}


def nearest(own: np.ndarray, references: Vectors) -> np.ndarray:
    """The nearest vector with no negative product: of each set of references on whose border it may lie, the best."""
    best, least = own, np.inf
    for count in range(len(references) + 1):
        for chosen in combinations(references, count):
            tried = own
            if chosen:
                basis = np.linalg.qr(np.stack(chosen).T)[0]
                tried = own - basis @ (basis.T @ own)
            if all(tried @ reference > -1e-9 for reference in references) and np.sum((tried - own) ** 2) < least:
                best, least = tried, float(np.sum((tried - own) ** 2))
    return best


@pytest.mark.parametrize("against", [-1.0, -0.3, 0.4])
@pytest.mark.parametrize("tasks", [2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_each_tasks_constraint_holds_and_the_step_is_the_nearest(seed: int, tasks: int, against: float) -> None:
    model, gradients, own, references = given(seed, tasks, against)
    build("mitigation", "agem", constraint="each").edit_gradients(gradients, toy_context(model, None))
    np.testing.assert_allclose(flat(gradients), nearest(own, references), atol=1e-4)


def test_references_that_say_the_same_or_nothing_are_no_trouble() -> None:
    gram = torch.tensor([[4.0, 4.0, 0.0], [4.0, 4.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    pushed = least_push(gram, torch.tensor([-2.0, -2.0, 0.0], dtype=torch.float64))
    assert float((gram @ pushed)[0]) == pytest.approx(2.0)
    assert pushed[2] == 0


@pytest.mark.parametrize("constraint", ["average", "each"])
def test_a_reference_that_overflowed_changes_nothing(constraint: str) -> None:
    model, gradients, own, _ = given(1, 2, -1.0)
    gradients.references["task0"]["0.bias"].fill_(torch.inf)
    build("mitigation", "agem", constraint=constraint).edit_gradients(gradients, toy_context(model, None))
    np.testing.assert_allclose(flat(gradients), own, atol=1e-5)


def test_what_is_kept_and_how_much_of_it_a_step_looks_at() -> None:
    objective = build("objective", "causal_lm", packing=False)
    earlier = [toy_task(list(toy_rows(12)), objective, name) for name in ("old", "older")]
    ctx = toy_context(toy_model(), objective, earlier=earlier)
    found = {}
    for options in ({}, {"buffer_size": 5}, {"rows_per_step": 6}, {"rows_per_step": 6, "constraint": "each"}):
        part = build("mitigation", "agem", **options)
        for task in earlier:
            part.remember(task, ctx)
        part.begin(ctx)
        sources = part.sources(ctx)
        assert [source.name for source in sources] == ["old", "older"]
        assert all(source.share == 0 for source in sources)
        found[str(options)] = [(len(source.items), source.reference_rows) for source in sources]
    assert list(found.values()) == [[(12, 12)] * 2, [(5, 5)] * 2, [(12, 3)] * 2, [(12, 6)] * 2]
    again = build("mitigation", "agem", buffer_size=5)
    again.remember(earlier[0], ctx)
    other = build("mitigation", "agem", buffer_size=5)
    other.remember(earlier[0], replace(ctx, seed=1))
    assert again.state_dict()["kept"]["old"] != other.state_dict()["kept"]["old"]


def test_a_stage_counts_its_own_steps_and_goes_on_where_it_was() -> None:
    model, gradients, *_ = given(0, 1, -1.0)
    part = build("mitigation", "agem")
    ctx = toy_context(model, None, stage=1)
    part.begin(ctx)
    part.edit_gradients(gradients, ctx)
    again = build("mitigation", "agem")
    again.load_state_dict(part.state_dict())
    again.begin(ctx)
    assert again.report()["conflicts"] == 1.0
    again.edit_gradients(gradients, ctx)  # what conflicted has been taken out
    assert again.report()["conflicts"] <= 1.0
    again.begin(replace(ctx, stage=2))
    assert again.state_dict()["steps"] == 0
    with pytest.raises(ValueError, match="agem: a state has kept"):
        again.load_state_dict({"rows": 1})


def test_it_keeps_the_old_task_of_a_small_stream(tmp_path: Path) -> None:
    plain, _ = run(tmp_path, "plain", stream())
    kept, told = run(tmp_path, "kept", stream('[[stage.mitigation]]\nuse = "agem"'))
    assert told["agem"]["rows"] == {"capitals": 6}
    assert 0 < told["agem"]["conflicts"] <= 1
    assert kept[0] == plain[0], "the first stage is the same"
    assert kept[1][0] < 0.3 * plain[1][0], "the old task is kept better"
    assert kept[1][1] < 0.1 * kept[0][1], "and the new one learned"
