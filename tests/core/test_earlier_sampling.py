"""Who asks targets of earlier tasks needs their objectives to give them, whatever the stage's own does."""

from __future__ import annotations

import tomllib

import pytest

from ftk.errors import RecipeError
from ftk.plugin.discovery import load_registry
from ftk.recipe.reading import Recipe, recipe_from_table

REGISTRY = load_registry(third_party=False)
ROWS = 'data = { train = { use = "world_facts" } }\n'


def read(first: str, second: str, labels: str = "sample", top: str = "", mitigation: str = "") -> Recipe:
    text = f"""
name = "two"
model = {{ use = "scratch" }}
adaptation = {{ use = "full" }}
{top}
[[stage]]
name = "one"
objective = {{ use = "{first}" }}
{ROWS}
[[stage]]
name = "two"
objective = {{ use = "{second}" }}
mitigation = [{mitigation or f'{{ use = "ewc", labels = "{labels}" }}'}]
{ROWS}"""
    return recipe_from_table(tomllib.loads(text), "here", text, registry=REGISTRY)


def test_an_earlier_objective_that_draws_none_is_refused() -> None:
    """It was told in the second stage, when the first had been trained."""
    with pytest.raises(RecipeError) as failure:
        read("preference", "instruction")
    (found,) = failure.value.problems
    assert found.path == "stage.two.mitigation.ewc"
    assert found.reason.startswith("`ewc` draws targets of every earlier task, and objective `preference` of one")
    assert "instruction" in found.hint
    assert "own targets" in found.hint


def test_so_is_that_of_the_retained_task() -> None:
    top = 'objective = { use = "preference" }\ndata = { retain = { use = "world_facts" } }'
    with pytest.raises(RecipeError, match="objective `preference` of one does not give them"):
        read("instruction", "instruction", top=top)


def test_the_objective_of_the_stage_itself_may_draw_none() -> None:
    assert read("instruction", "preference")
    assert read("preference", "instruction", labels="empirical")


def test_all_targets_are_tried_where_a_row_has_one_of_few_labels() -> None:
    assert read("classification", "instruction", labels="exact")
    with pytest.raises(RecipeError, match="`ewc` tries all targets of every earlier task, and objective `instruction`"):
        read("instruction", "instruction", labels="exact")
    with pytest.raises(RecipeError, match="objective `classification` of one does not give them"):
        read('classification", kind = "regression', "instruction", labels="exact")


@pytest.mark.parametrize("keeper", ['use = "der"', 'use = "distill", rows = "retained"'])
def test_predictions_are_kept_of_earlier_tasks_that_have_some(keeper: str) -> None:
    assert read("instruction", "preference", mitigation=f"{{ {keeper} }}")
    with pytest.raises(
        RecipeError, match="keeps predictions of every earlier task, and objective `preference`"
    ) as found:
        read("preference", "instruction", mitigation=f"{{ {keeper} }}")
    assert "by its `tasks`" in found.value.problems[0].hint
    with pytest.raises(RecipeError, match="no task `three`"):
        read("preference", "instruction", mitigation=f'{{ {keeper}, tasks = ["three"] }}')
