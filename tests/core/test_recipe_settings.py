"""--set and --without change a recipe before it is checked."""

from __future__ import annotations

import pytest

from ftk.errors import RecipeError
from ftk.plugin.registry import Registry
from ftk.recipe.overrides import merge_training
from ftk.recipe.reading import recipe_from_table
from tests.core.bad_recipes import pipeline
from tests.core.lab import GOOD, PIPELINE
from tests.core.read import Read


@pytest.mark.parametrize(
    ("setting", "found"),
    [
        ("adaptation.rank=2", lambda r: r.stages[0].adaptation.options.rank == 2),
        ("mitigation.anchor.strength=1e-3", lambda r: r.stages[0].mitigations[0].options.strength == 0.001),
        ("mitigation.2.share=0.4", lambda r: r.stages[0].mitigations[1].options.share == 0.4),
        ("mitigation.anchor.layers=last", lambda r: r.stages[0].mitigations[0].options.layers == "last"),
        (
            'mitigation.anchor.layers=["a","b"]',
            lambda r: r.stages[0].mitigations[0].options.layers == ["a", "b"],
        ),
        ("mitigation=[]", lambda r: r.stages[0].mitigations == ()),
        ("adaptation={use='whole'}", lambda r: r.stages[0].adaptation.name == "whole"),
        ("training.learning_rate=1e-3", lambda r: r.stages[0].training.learning_rate == 0.001),
        (
            "training.epochs=2",
            lambda r: (r.stages[0].training.epochs, r.stages[0].training.steps) == (2, None),
        ),
        ("training.optimizer=muon", lambda r: r.stages[0].training.optimizer.use == "muon"),
        ("training.optimizer.beta2=0.9", lambda r: r.stages[0].training.optimizer.beta2 == 0.9),
        ("training.schedule.use=wsd", lambda r: r.stages[0].training.schedule.use == "wsd"),
        ("training.warmup_steps=4", lambda r: r.stages[0].training.warmup_steps == 4),
        ("seed=5", lambda r: r.seed == 5),
        ("name=other", lambda r: r.name == "other"),
        ("data.train.path=a=b", lambda r: r.stages[0].data.train.options.path == "a=b"),
        ("data.probes.hard={use='rows',path='h'}", lambda r: list(r.stages[0].data.probes) == ["hard"]),
        ("data.train.transform=[{use='lower'}]", lambda r: len(r.stages[0].data.train.transforms) == 1),
        ('"seed" = 6', lambda r: r.seed == 6),
    ],
)
def test_settings_change_the_recipe(setting: str, found: object, read: Read) -> None:
    assert found(read(GOOD, setting))  # type: ignore[operator]
    assert not found(read(GOOD))  # type: ignore[operator]


def test_settings_of_stages_by_name_and_by_number(read: Read) -> None:
    recipe = read(PIPELINE, "stage.first.training.epochs=5", "stage.2.training.batch_size=16", "training.warmup=0.1")
    first, second = recipe.stages
    assert (first.training.epochs, first.training.warmup) == (5, 0.1)
    assert (second.training.batch_size, second.training.warmup) == (16, 0.1)


def test_a_stages_warm_up_replaces_the_defaults_in_either_form(read: Read) -> None:
    recipe = read(PIPELINE.replace("steps = 7 }", "steps = 7, warmup_steps = 2 }"), "training.warmup=0.5")
    assert [stage.training.warmup_of(10) for stage in recipe.stages] == [5, 2]
    recipe = read(PIPELINE.replace("steps = 7 }", "steps = 7, warmup = 0.5 }"), "training.warmup_steps=2")
    assert [stage.training.warmup_of(10) for stage in recipe.stages] == [2, 5]


def test_a_stages_optimizer_without_use_changes_the_defaults(read: Read) -> None:
    changed = PIPELINE.replace("steps = 7 }", "steps = 7, optimizer = { momentum = 0.5 } }")
    recipe = read(changed, "training.optimizer=sgd", "training.optimizer.nesterov=true")
    first, second = (stage.training.optimizer.model_dump() for stage in recipe.stages)
    assert first == {"use": "sgd", "momentum": 0.9, "nesterov": True}
    assert second == {"use": "sgd", "momentum": 0.5, "nesterov": True}
    recipe = read(changed.replace("{ momentum", '{ use = "muon", momentum'), "training.optimizer=sgd")
    assert [stage.training.optimizer.use for stage in recipe.stages] == ["sgd", "muon"]


def test_setting_a_stages_inherited_mitigation_keeps_the_list(read: Read) -> None:
    recipe = read(PIPELINE, "stage.second.mitigation.anchor.strength=9", "data.retain={use='rows',path='old'}")
    assert [stage.mitigations[0].options.strength for stage in recipe.stages] == [0.5, 9]


def test_settings_do_not_change_the_table_they_are_given(lab: Registry) -> None:
    import tomllib

    table = tomllib.loads(GOOD)
    recipe_from_table(table, "table", GOOD, overrides=["mitigation.mix.share=0.3"], without=["anchor"], registry=lab)
    assert table == tomllib.loads(GOOD)


def test_without_leaves_a_mitigation_out_everywhere(read: Read) -> None:
    assert [spec.name for spec in read(GOOD, without=("anchor",)).stages[0].mitigations] == ["mix"]
    text = pipeline(('name = "second"', 'name = "second"\nmitigation = [{ use = "mix" }, { use = "anchor" }]'))
    recipe = read(text, without=("anchor", "anchor"))
    assert [[spec.name for spec in stage.mitigations] for stage in recipe.stages] == [[], ["mix"]]
    assert recipe.notes == ()


def test_a_stage_takes_back_with_false_what_the_defaults_set(read: Read) -> None:
    text = PIPELINE.replace("steps = 7 }", "steps = 7, dropout = false }")
    assert [stage.training.dropout for stage in read(text, "training.dropout=0.5").stages] == [0.5, None]
    watched = {"evaluate_every": 5, "early_stopping": {"patience": 2}, "compile": True}
    assert merge_training(watched, {"early_stopping": False, "compile": False}) == {
        "evaluate_every": 5,
        "compile": False,
    }


def test_a_mitigation_names_tasks_that_come_before_its_stage(read: Read) -> None:
    replay = "mitigation = [{ use = 'replay', tasks = ['TASK'] }]\ntraining = { steps = 7 }"
    text = PIPELINE.replace("training = { steps = 7 }", replay)
    assert read(text.replace("TASK", "first")).stages[1].mitigations[0].options.tasks == ("first",)
    with pytest.raises(RecipeError, match=r"no task `frist` comes before this stage") as refused:
        read(text.replace("TASK", "frist"))
    assert "did you mean `first`" in str(refused.value)
