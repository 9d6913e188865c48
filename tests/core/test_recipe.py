"""Reading recipes: what they resolve to, how stages merge with defaults, changes from the command line."""

from __future__ import annotations

import json

import pytest

from ftk.errors import RunFailed, UserError
from tests.core.bad_recipes import ANCHOR, good, pipeline
from tests.core.lab import GOOD, PIPELINE
from tests.core.read import Read


def test_a_recipe_of_one_stage(read: Read) -> None:
    recipe = read(GOOD)

    [stage] = recipe.stages
    assert (recipe.name, recipe.seed, stage.name) == ("trial", 1, "trial")
    assert recipe.model.options.width == 8
    assert (stage.adaptation.name, stage.adaptation.options.rank, stage.adaptation.path) == (
        "adapter",
        8,
        "adaptation",
    )
    assert [spec.path for spec in stage.mitigations] == ["mitigation.anchor", "mitigation.mix"]
    assert stage.data.train.options.path == "train.jsonl"
    assert stage.data.validation is None
    assert stage.data.overlap == "warn"
    assert stage.training.steps == 10
    assert recipe.retain.options.path == "old.jsonl"
    assert recipe.retain_objective == stage.objective
    assert recipe.retain_evaluators == stage.evaluators
    assert recipe.notes == ()
    assert recipe.text == GOOD


def test_stages_take_the_defaults_and_change_them(read: Read) -> None:
    first, second = read(PIPELINE).stages

    assert (first.adaptation.name, first.adaptation.path) == ("whole", "adaptation")
    assert (second.adaptation.name, second.adaptation.path) == ("adapter", "stage.second.adaptation")
    assert (first.objective.name, second.objective.name) == ("words", "answers")
    assert second.data.validation == first.data.validation
    assert second.data.train.path == "stage.second.data.train"
    assert (first.training.epochs, first.training.steps, first.training.batch_size) == (2, None, 4)
    # A stage's own length takes the place of the default's, whichever of the two it is.
    assert (second.training.epochs, second.training.steps, second.training.batch_size) == (None, 7, 4)
    assert (first.evaluators, [spec.name for spec in second.evaluators]) == ((), ["keywords"])


def test_a_table_without_use_changes_the_default_variant(read: Read) -> None:
    text = pipeline(('"whole"', '"adapter"\nrank = 3\nscale = 2.0'), ('{ use = "adapter", rank = 2 }', "{ rank = 9 }"))
    first, second = read(text).stages
    assert (first.adaptation.options.rank, second.adaptation.options.rank) == (3, 9)
    assert second.adaptation.options.scale == 2.0


def test_a_table_with_use_starts_from_the_variants_defaults(read: Read) -> None:
    text = pipeline(('"whole"', '"adapter"\nrank = 3\nscale = 2.0'))
    assert read(text).stages[1].adaptation.options.scale is None


def test_a_stages_list_replaces_the_default_list(read: Read) -> None:
    text = pipeline(('name = "second"', 'name = "second"\nmitigation = [{ use = "mix", name = "m" }]'))
    assert [[spec.name for spec in stage.mitigations] for stage in read(text).stages] == [[], ["m"]]
    text = pipeline(('name = "second"', 'name = "second"\nmitigation = []'))
    assert [stage.mitigations for stage in read(text).stages] == [(), ()]


def test_guards_of_earlier_knowledge_are_left_out_of_the_first_stage_with_a_note(read: Read) -> None:
    recipe = read(PIPELINE)
    assert [[spec.name for spec in stage.mitigations] for stage in recipe.stages] == [[], ["anchor"]]
    assert "stage first: `anchor` left out" in recipe.notes[0]
    text = pipeline(
        (
            "[data]",
            '[data]\nretain = { use = "rows", path = "old" }\nretain_test = { use = "rows", path = "o" }',
        )
    )
    kept = read(text)
    assert [[spec.name for spec in stage.mitigations] for stage in kept.stages] == [["anchor"], ["anchor"]]
    assert kept.notes == ()


def test_a_recipe_without_evaluators_is_noted(read: Read) -> None:
    assert read(good(('[[evaluator]]\nuse = "keywords"', ""))).notes == (
        "there is no evaluator: nothing will be measured",
    )


def test_retained_rows_take_the_first_stages_objective_and_evaluators_where_there_is_no_default(
    read: Read,
) -> None:
    text = pipeline(
        ('[objective]\nuse = "words"\n', ""),
        ('name = "first"', 'name = "first"\nobjective = { use = "words" }\nevaluator = [{ use = "nats" }]'),
        ("[data]", '[data]\nretain = { use = "rows", path = "old" }\nretain_test = { use = "rows", path = "t" }'),
        ('"first.jsonl" }', '"first.jsonl" }\ntest = { use = "rows", path = "t" }'),
    )
    recipe = read(text)
    assert recipe.retain_objective.path == "stage.first.objective"
    assert [spec.path for spec in recipe.retain_evaluators] == ["stage.first.evaluator.nats"]


def test_evaluators_of_the_retained_rows_are_checked_against_their_objective(read: Read) -> None:
    text = pipeline(
        ("[data]", '[[evaluator]]\nuse = "keywords"\n[data]\nretain = { use = "rows", path = "old" }'),
        ('name = "first"', 'name = "first"\nobjective = { use = "answers" }'),
    )
    with pytest.raises(UserError, match=r"objective `words` does not provide \(for data.retain\)"):
        read(text)


def test_probes_transforms_and_names(read: Read) -> None:
    text = good(
        (
            'path = "train.jsonl"',
            'path = "t", transform = [{ use = "lower", lower = true }, { use = "lower" }]',
        ),
        ("[[evaluator]]", '[data.probes]\nhard = { use = "rows", path = "hard" }\n[[evaluator]]'),
        (ANCHOR, f'{ANCHOR}\nname = "a"\n{ANCHOR}\nname = "b"'),
    )
    [stage] = read(text).stages
    assert [spec.options.lower for spec in stage.data.train.transforms] == [True, False]
    assert stage.data.train.transforms[0].path == "data.train.transform.1"
    assert {name: spec.path for name, spec in stage.data.probes.items()} == {"hard": "data.probes.hard"}
    assert [spec.path for spec in stage.mitigations][:2] == ["mitigation.a", "mitigation.b"]


def test_what_validates_on_earlier_tasks_needs_their_validation_data(read: Read) -> None:
    held = 'validation = { use = "rows", path = "validation.jsonl" }'
    blend = 'training = { steps = 7 }\nmitigation = [{ use = "blend", alpha = "validation" }]'
    text = PIPELINE.replace(held + "\n", "").replace("training = { steps = 7 }", blend)
    second = text.replace('path = "second.jsonl" }', 'path = "second.jsonl" }\n' + held)
    with pytest.raises(UserError, match="every earlier task, and stage `first` has none"):
        read(second)
    read(second.replace('path = "first.jsonl" }', 'path = "first.jsonl", fraction = 0.1 }'))


def test_what_the_best_goes_by_is_checked_where_the_evaluators_tell_their_metrics(read: Read) -> None:
    watched = GOOD.replace('path = "train.jsonl"', 'path = "train.jsonl", fraction = 0.1')
    watched = watched.replace("steps = 10", 'steps = 10\nevaluate_every = 5\nkeep = "best"\nbest_by = "{}"')
    assert read(watched.replace("{}", "anything")).stages[0].training.best_by == "anything", "`keywords` tells nothing"
    mine = watched.replace('use = "keywords"', 'use = "nats"\nname = "mine"')
    assert read(mine.replace("{}", "mine")).stages[0].training.best_by == "mine", "it takes the evaluator's name"


def test_evaluations_say_which_tasks_they_leave_out(read: Read) -> None:
    watched = PIPELINE.replace("epochs = 2", 'epochs = 2\nevaluate_every = 5\nkeep = "best"\nretention_weight = 1')
    watched = watched.replace("[data]", '[data]\ntest = { use = "rows", path = "test.jsonl" }', 1)
    evaluator = '[[evaluator]]\nuse = "nats"\n[[stage]]\nname = "first"'
    recipe = read(watched.replace('[[stage]]\nname = "first"', evaluator, 1))
    assert recipe.notes[1:] == (
        "stage first: retention_weight has nothing to weigh, for nothing was learned before it",
    )
    alone = watched.replace('validation = { use = "rows", path = "validation.jsonl" }', "")
    alone = alone.replace('path = "second.jsonl"', 'path = "second.jsonl", fraction = 0.1')
    first = 'training = { evaluate_every = 0, keep = "last", retention_weight = 0 }'
    alone = alone.replace('name = "first"', f'name = "first"\n{first}').replace(
        "training = { steps = 7 }", "training = { steps = 7, retention_weight = 0 }"
    )
    assert read(alone).notes[-1] == (
        "stage second: evaluate_every leaves out task `first`, which has no validation data"
    )


def test_validation_data_may_come_from_the_train_sources_own_split(read: Read) -> None:
    chosen = (ANCHOR, '[[mitigation]]\nuse = "blend"\nalpha = "validation"')
    own = [(f'path = "{name}.jsonl"', f'path = "{name}", fraction = 0.1') for name in ("train", "old")]
    assert read(good(chosen, *own)).stages[0].data.validation is None
    keys = 'validation = { use = "rows", path = "v" }\nretain_validation = { use = "rows", path = "w" }\n'
    named = good(chosen, ("retain =", f"{keys}retain ="))
    assert read(named).stages[0].data.validation.options.path == "v"


def test_the_hash_is_of_what_runs(read: Read) -> None:
    same = GOOD.replace("seed = 1", "seed  = 1 # the first").replace('"mix"', '"ftk-lab/mix"') + "batch_size = 8\n"
    assert read(same, file="elsewhere").sha256 == read(GOOD).sha256
    for setting in ("seed=2", "training.batch_size=9", "mitigation.mix.share=0.3", "data.overlap=error"):
        assert read(GOOD, setting).sha256 != read(GOOD).sha256


def test_the_resolved_recipe_holds_every_default_as_json(read: Read) -> None:
    resolved = read(GOOD).resolved()
    assert json.loads(json.dumps(resolved)) == resolved
    assert resolved["stages"][0]["mitigations"][0]["options"] == {"strength": 0.5, "layers": "all"}
    assert resolved["stages"][0]["training"]["batch_size"] == 8
    assert resolved["retain"]["test"]["options"]["path"] == "old-test.jsonl"
    assert resolved["model"]["distribution"] == "ftk-lab"


def test_parts_are_built_and_held_to_their_kind(read: Read) -> None:
    from ftk.parts import Transform
    from ftk.recipe.building import build

    def transform(name: str) -> object:
        text = good(('path = "train.jsonl"', f'path = "t", transform = [{{ use = "{name}" }}]'))
        return build(read(text).stages[0].data.train.transforms[0], Transform)

    assert isinstance(transform("lower"), Transform)
    with pytest.raises(RunFailed, match=r"transform.1: `unlike` of ftk-lab builds Unlike, which is not a Transform"):
        transform("unlike")
    with pytest.raises(
        RunFailed, match=r"`explosive` .* cannot be built: ZeroDivisionError: no rows to divide by"
    ) as raised:
        transform("explosive")
    assert isinstance(raised.value.__cause__, ZeroDivisionError)
    with pytest.raises(UserError, match=r"`unfinished` .* cannot be loaded: .*ftk_lab.nowhere") as missing:
        transform("unfinished")
    assert missing.value.hint == "pip install --upgrade ftk-lab, or pip uninstall ftk-lab"


def test_every_kind_has_the_class_that_it_builds() -> None:
    from ftk.parts.kinds import PART_OF_KIND
    from ftk.plugin.variant import KINDS

    assert tuple(PART_OF_KIND) == KINDS
