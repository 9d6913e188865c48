"""Evaluators with data sets of their own: read like any other, measured in one task, and what may go by them."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from ftk.cli.check import describe
from ftk.errors import RecipeError
from ftk.plugin.discovery import load_registry
from ftk.recipe.reading import Recipe, recipe_from_table

REGISTRY = load_registry(third_party=False)

BASE = """
name = "own"
model = { use = "scratch" }
objective = { use = "instruction" }
adaptation = { use = "full" }
"""
ROWS = 'use = "world_facts"'
CHOICES = 'evaluator = [{ use = "multiple_choice", data = { use = "files", path = "q.jsonl" } }]\n'
WATCHED = CHOICES.replace(" } }]", " }, while_training = true }]")
TRAIN = f"data = {{ train = {{ {ROWS} }} }}\n"
STAGES = "".join(
    f'[[stage]]\nname = "{name}"\ndata = {{ train = {{ {ROWS} }}, test = {{ {ROWS} }} }}\n' for name in "ab"
)


def read(text: str) -> Recipe:
    return recipe_from_table(tomllib.loads(BASE + text), "here", text, registry=REGISTRY)


def problems(text: str) -> list[str]:
    with pytest.raises(RecipeError) as failure:
        read(text)
    return [f"{it.path}|{it.reason}|{it.hint}" for it in failure.value.problems]


def measured(recipe: Recipe) -> dict[str, list[str]]:
    told = {stage.name: [spec.name for spec in stage.evaluators] for stage in recipe.stages}
    return {"retain": [spec.name for spec in recipe.retain_evaluators], **told} if recipe.retain else told


def test_it_needs_no_test_rows_of_the_task() -> None:
    assert measured(read(CHOICES + TRAIN)) == {"own": ["multiple_choice"]}
    (found,) = problems('evaluator = [{ use = "multiple_choice" }]\n' + TRAIN)
    assert found.startswith("evaluator.multiple_choice|`multiple_choice`: there are no test rows to measure on")


def test_it_stands_in_the_first_task_that_has_it() -> None:
    both = CHOICES.replace("}]", '}, { use = "perplexity" }]')
    assert measured(read(both + STAGES)) == {"a": ["multiple_choice", "perplexity"], "b": ["perplexity"]}
    retain = f"[data]\nretain = {{ {ROWS} }}\nretain_test = {{ {ROWS} }}\n"
    found = measured(read(both + retain + STAGES))
    assert found == {"retain": ["multiple_choice", "perplexity"], "a": ["perplexity"], "b": ["perplexity"]}
    own = STAGES.replace('name = "b"\n', f'name = "b"\n{CHOICES}')
    assert measured(read(CHOICES + own)) == {"a": ["multiple_choice"], "b": []}
    others = STAGES.replace('name = "b"\n', f'name = "b"\n{CHOICES.replace("q.jsonl", "p.jsonl")}')
    assert measured(read(CHOICES + others)) == {"a": ["multiple_choice"], "b": ["multiple_choice"]}


def test_without_a_data_set_it_measures_every_task() -> None:
    of_tasks = 'evaluator = [{ use = "multiple_choice" }]\n'
    assert measured(read(of_tasks + STAGES)) == {"a": ["multiple_choice"], "b": ["multiple_choice"]}


def test_its_data_set_is_checked_like_any_other() -> None:
    bad = CHOICES.replace("path", "pth")
    assert any(
        it.startswith("evaluator.multiple_choice.data.pth|unknown key|did you mean") for it in problems(bad + TRAIN)
    )
    (found,) = problems(CHOICES.replace('use = "files"', 'use = "flies"') + TRAIN)
    assert found.startswith("evaluator.multiple_choice.data.use|unknown dataset `flies`")
    cleaned = CHOICES.replace('"q.jsonl"', '"q.jsonl", transform = [{ use = "decontaminate" }]')
    (found,) = problems(cleaned + TRAIN)
    assert found.startswith("evaluator.multiple_choice.data.transform.1|`decontaminate` takes test rows out")


def test_it_is_a_test_set_to_transforms_that_ask_for_them() -> None:
    cleaned = TRAIN.replace('"world_facts"', '"world_facts", transform = [{ use = "decontaminate" }]')
    assert read(CHOICES + cleaned)
    of_task = 'evaluator = [{ use = "multiple_choice", shots = 1, shots_from = { use = "files", path = "q.jsonl" } }]\n'
    assert any("and there are none" in it for it in problems(of_task + cleaned))


def test_it_is_resolved_and_described_with_its_data_set() -> None:
    text = CHOICES.replace('"q.jsonl"', '"q.jsonl", transform = [{ use = "clean" }]')
    recipe = read(text + TRAIN)
    (spec,) = recipe.stages[0].evaluators
    told: dict[str, Any] = spec.resolved()["options"]
    assert told["data"]["options"]["path"] == "q.jsonl"
    assert [step["use"] for step in told["data"]["transform"]] == ["clean"]
    assert told["shots_from"] is None
    assert describe(spec) == "multiple_choice, data: files path='q.jsonl' > clean"
    assert recipe.sha256 != read(text.replace("q.jsonl", "p.jsonl") + TRAIN).sha256


VALIDATION = f"data = {{ train = {{ {ROWS} }}, validation = {{ {ROWS} }} }}\n"
CHOOSING = '[training]\nevaluate_every = 5\nkeep = "best"\n'


def test_it_is_what_a_stage_is_chosen_by_if_it_measures_while_training() -> None:
    best = 'best_by = "choice_accuracy_norm"\n'
    for data in (VALIDATION, TRAIN):
        assert read(WATCHED + data + CHOOSING + best).stages[0].training.best_by == "choice_accuracy_norm"
    (found,) = problems(CHOICES + VALIDATION + CHOOSING + best)
    assert found == (
        "training.best_by|`multiple_choice` measures `choice_accuracy_norm` only when a stage has ended|"
        "write while_training = true in `multiple_choice`, or choose another metric"
    )
    assert "measures on validation data, and there is none" in problems(CHOICES + TRAIN + CHOOSING)[0]


RETAIN = f"""
[data]
train = {{ {ROWS} }}
validation = {{ {ROWS} }}
test = {{ {ROWS} }}
retain = {{ {ROWS} }}
retain_validation = {{ {ROWS} }}
retain_test = {{ {ROWS} }}
"""


def test_a_weight_of_what_no_earlier_task_measures_is_refused() -> None:
    """It was told only at the first evaluation, after the starting model was loaded and measured."""
    weighed = CHOOSING + "retention_weight = 1\n"
    top = 'evaluator = [{ use = "perplexity" }, { use = "exact_match" }]\n'
    assert read(top + RETAIN + weighed)
    stage = '[[stage]]\nname = "a"\nevaluator = [{ use = "keyword_accuracy" }, { use = "perplexity" }]\n'
    (found,) = problems(top + RETAIN + weighed + stage)
    assert found == (
        "training.retention_weight|no earlier task measures `keyword_accuracy`, by which the stage chooses, on "
        'validation data|write best_by = "perplexity", which both measure, or leave retention_weight out'
    )
    assert read(top + RETAIN + weighed + 'best_by = "perplexity"\n' + stage)
    (found,) = problems(top + RETAIN + weighed + stage.replace(', { use = "perplexity" }', ""))
    assert found.endswith("|give both a common evaluator, or leave retention_weight out")
    several = """
[[stage]]
name = "z"
objective = { use = "multitask", tasks = { x = { use = "instruction" }, y = { use = "causal_lm" } } }
training = { evaluate_every = 0, keep = "last", retention_weight = 0 }
[stage.data]
test = { use = "mixture", parts = { x = { use = "world_facts" }, y = { use = "world_facts" } } }
train = { use = "mixture", parts = { x = { use = "world_facts" }, y = { use = "world_facts" } } }
validation = { use = "mixture", parts = { x = { use = "world_facts" }, y = { use = "world_facts" } } }
"""
    alone = VALIDATION.replace(" } }", f" }}, test = {{ {ROWS} }} }}")
    assert read(top + alone + weighed + several + stage.replace("keyword_accuracy", "exact_match"))
    # What is only measured when a stage has ended weighs nothing while it trains.
    (found,) = problems(CHOICES + RETAIN + weighed + stage.replace("exact_match", "perplexity"))
    assert found.startswith("training.retention_weight|weighs earlier tasks, and none is there to measure")
