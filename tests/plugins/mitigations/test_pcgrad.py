"""`pcgrad` against Algorithm 1 of Yu et al. 2020, written out vector by vector."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ftk
from ftk.parts import Gradients, Mitigation
from ftk.recipe.reading import load_recipe
from ftk.running.composition import Composition
from ftk.running.loop import Progress
from ftk.testing import toy_context
from tests.core.loops import build, make_loop
from tests.joint import joint
from tests.system.small import written


class Net(nn.Module):
    """A body that all sources reach, and a head for each of the first two."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 3)
        self.one, self.other = nn.Linear(3, 2), nn.Linear(3, 2)


HEADS = ("one.", "other.")


def given(model: Net, seed: int, sources: int = 3) -> tuple[Gradients, dict[str, dict[str, Tensor]]]:
    """Gradients by source as the loop leaves them, drawn so that some work against others."""
    gradients, random = Gradients(model), torch.Generator().manual_seed(seed)
    by_source: dict[str, dict[str, Tensor]] = {}
    for number in range(sources):
        name = f"train/{number}"
        for weight, parameter in model.named_parameters():
            if weight.startswith(HEADS) and not weight.startswith(HEADS[number : number + 1]):
                continue
            drawn = torch.randn(parameter.shape, generator=random)
            opposed = -0.7 * by_source["train/0"][weight] if number == 1 else 0.0
            parameter.grad = drawn + opposed * (not weight.startswith(HEADS))
        gradients.set_aside(name)
        by_source[name] = {weight: its.clone() for weight, its in gradients._by_source[name].items()}
    gradients.join()
    return gradients, by_source


def surgery(vectors: list[Tensor], orders: list[list[int]]) -> Tensor:
    """Algorithm 1."""
    projected = []
    for i, vector in enumerate(vectors):
        g = vector.clone()
        for j in orders[i]:
            if j != i and (inner := g @ vectors[j]) < 0:
                g -= inner / (vectors[j] @ vectors[j]) * vectors[j]
        projected.append(g)
    return torch.stack(projected).sum(0)


@pytest.mark.parametrize("scope", ["all", "tensor"])
@pytest.mark.parametrize("seed", range(4))
def test_it_is_algorithm_1_over_the_weights_that_sources_share(scope: str, seed: int) -> None:
    model = Net()
    gradients, by_source = given(model, seed)
    part, ctx = build("mitigation", "pcgrad", scope=scope), toy_context(model, None, step=seed)
    before = {name: its.clone() for name, its in gradients.items()}
    Composition({"pcgrad": part}).edit_gradients(gradients, ctx)
    generator = ctx.generator("pcgrad", seed)
    orders = [torch.randperm(3, generator=generator).tolist() for _ in range(3)]
    shared = [name for name in before if not name.startswith(HEADS)]
    groups = [shared] if scope == "all" else [[name] for name in shared]
    changed = 0
    for names in groups:
        vectors = [torch.cat([its[name].flatten() for name in names]) for its in by_source.values()]
        expected = surgery(vectors, orders)
        torch.testing.assert_close(torch.cat([gradients[name].flatten() for name in names]), expected)
        changed += not torch.allclose(expected, sum(vectors))
    assert changed
    for name in before.keys() - set(shared):
        assert torch.equal(gradients[name], before[name]), "what one source alone reaches stays as it is"
    inner = [[float(sum((a[n] * b[n]).sum() for n in shared)) for a in by_source.values()] for b in by_source.values()]
    conflicts = sum(inner[i][j] < 0 for i in range(3) for j in range(i))
    assert part.report() == {"pairs": 3, "conflicts": conflicts}


def test_what_others_have_edited_stays_whatever_the_order() -> None:
    class Pull(Mitigation):
        def edit_gradients(self, gradients: Gradients, ctx: Any) -> None:
            for gradient in gradients.values():
                gradient += 0.25

    edited = []
    for names in (("pull", "pcgrad"), ("pcgrad", "pull")):
        model = Net()
        gradients, _ = given(model, 1)
        parts = {"pull": Pull(), "pcgrad": build("mitigation", "pcgrad")}
        Composition({name: parts[name] for name in names}).edit_gradients(gradients, toy_context(model, None))
        edited.append(torch.cat([gradient.flatten() for gradient in gradients.values()]))
    torch.testing.assert_close(*edited)


def test_two_sources_end_up_not_working_against_each_other() -> None:
    """The paper's figure 2: both projected, the step still descends for each."""
    model = nn.Linear(2, 1, bias=False)
    gradients = Gradients(model)
    for name, values in (("train/a", [1.0, 0.0]), ("train/b", [-1.0, 1.0])):
        model.weight.grad = torch.tensor([values])
        gradients.set_aside(name)
    gradients.join()
    build("mitigation", "pcgrad").edit_gradients(gradients, toy_context(model, None))
    torch.testing.assert_close(gradients["weight"], torch.tensor([[0.5, 1.5]]))  # (½, ½) and (0, 1)


def test_a_step_of_one_source_is_left_as_it_is() -> None:
    loops = [make_loop(parts=parts, steps=2) for parts in ({}, {"pcgrad": build("mitigation", "pcgrad")})]
    ends = []
    for loop in loops:
        loop.by_source = bool(loop.mitigations.parts)
        loop.train(Progress())
        ends.append(torch.cat([p.detach().flatten() for p in loop.ctx.model.parameters()]))
    assert torch.equal(*ends)


def test_it_is_refused_where_nothing_can_be_in_conflict(tmp_path: Any) -> None:
    more = 'mitigation = [{ use = "pcgrad" }]\nname = "joint"'
    text = joint().replace('name = "joint"\nobjective', f"{more}\nobjective")
    load_recipe(written(tmp_path, text))
    alone = text.replace(text[text.index("objective = {") : text.index("evaluator =")], 'objective = "masked_lm"\n')
    alone = alone.replace('objective = "masked_lm"', 'objective = { use = "masked_lm" }')
    alone = alone.replace(', { use = "accuracy" }', "")
    with pytest.raises(
        ftk.RecipeError, match=r"pcgrad.*needs several-sources: all rows of a step are of one task here"
    ):
        load_recipe(written(tmp_path, alone, "alone.toml"))
