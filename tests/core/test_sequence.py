"""Sequences become the stages that a user would have written, and what is wrong is told where the user wrote it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from ftk.errors import RecipeError
from tests.core.lab import PIPELINE
from tests.core.read import Read

HEAD = """
name = "tasks"
model = { use = "tiny" }
objective = { use = "answers" }
evaluator = [{ use = "keywords" }]
training = { epochs = 2 }
"""
GUARD = '[[mitigation]]\nuse = "anchor"\n'
ONE = (
    HEAD
    + """
adaptation = { use = "adapter", rank = 8 }
[sequence]
values = ["north", "south"]
[data]
train = { use = "rows", path = "data/{value}.jsonl" }
test = { use = "rows", path = "{value}" }
validation = { use = "rows", path = "common" }
"""
    + GUARD
)
BY_HAND = (
    HEAD
    + """
adaptation = { use = "adapter", rank = 8 }
data = { validation = { use = "rows", path = "common" } }
[[stage]]
name = "north"
[stage.data]
train = { use = "rows", path = "data/north.jsonl" }
test = { use = "rows", path = "north" }
[[stage]]
name = "south"
[stage.data]
train = { use = "rows", path = "data/south.jsonl" }
test = { use = "rows", path = "south" }
"""
    + GUARD
)
BETWEEN = (
    HEAD
    + """
[[stage]]
name = "first"
adaptation = { use = "whole" }
data = { train = { use = "rows", path = "f" }, test = { use = "rows", path = "t" } }
[[stage]]
name = "regions"
adaptation = { use = "adapter", rank = "{rank}" }
training = { steps = "{steps}" }
[stage.sequence]
name = "{number}-{of}"
values = [{ of = ["a/b.c"], rank = 2, steps = 5 }, { of = ["x", "y"], rank = 3, steps = 6 }]
[stage.data]
train = { use = "rows", path = "p", columns = "{of}" }
test = { use = "rows", path = "t" }
[[stage]]
name = "last"
adaptation = { use = "whole" }
data = { train = { use = "rows", path = "l" }, test = { use = "rows", path = "t" } }
"""
)  # fmt: skip


def test_a_sequence_at_the_top_is_a_recipe_of_stages_written_by_hand(read: Read) -> None:
    made, written = read(ONE), read(BY_HAND)
    assert made.resolved() == written.resolved()
    assert made.sha256 == written.sha256
    assert "anchor` left out" in written.notes[0]
    assert made.notes == ()  # that the first of a sequence has nothing to guard goes without saying
    assert made.text == ONE


def test_a_sequence_stands_between_stages_and_fills_any_option(read: Read) -> None:
    first, one, two, last = read(BETWEEN).stages
    assert [first.name, one.name, two.name, last.name] == ["first", "1-a-b.c", "2-x-y", "last"]
    assert [(s.adaptation.options.rank, s.training.steps) for s in (one, two)] == [(2, 5), (3, 6)]
    assert (one.data.train.options.columns, two.data.train.options.columns) == (("a/b.c",), ("x", "y"))
    assert one.data.train.path == "stage.1-a-b.c.data.train"


def test_a_guard_in_a_template_is_a_default_of_its_stages(read: Read) -> None:
    text = BETWEEN.replace('name = "regions"', 'name = "regions"\nmitigation = [{ use = "anchor" }]')
    assert [len(stage.mitigations) for stage in read(text).stages] == [0, 1, 1, 0]
    alone = text[: text.index("[[stage]]")] + text[text.index('[[stage]]\nname = "regions"') :]
    assert [len(stage.mitigations) for stage in read(alone).stages] == [0, 1, 0]


def test_text_in_braces_that_is_no_key_stays(read: Read) -> None:
    recipe = read(ONE.replace("data/{value}.jsonl", "{other}/{value}/{}"))
    assert [stage.data.train.options.path for stage in recipe.stages] == ["{other}/north/{}", "{other}/south/{}"]


def test_settings_reach_the_values_the_template_and_one_stage(read: Read) -> None:
    recipe = read(ONE, "stage.south.training.epochs=7", 'sequence.values=["south", "east"]', "data.test.path=t{value}")
    assert [(s.name, s.training.epochs) for s in recipe.stages] == [("south", 7), ("east", 2)]
    assert recipe.stages[0].data.test.options.path == "tsouth"
    assert [spec.name for spec in recipe.stages[1].mitigations] == ["anchor"]
    stages = read(BETWEEN, "stage.regions.training.steps=9", "stage.2.adaptation.rank=1").stages
    assert [s.training.steps for s in stages] == [None, 9, 9, None]
    assert [stages[1].adaptation.options.rank, stages[2].adaptation.options.rank] == [1, 3]


def test_a_guard_is_left_out_of_every_stage(read: Read) -> None:
    assert all(not stage.mitigations for stage in read(ONE, without=("anchor",)).stages)


@dataclass(frozen=True)
class Wrong:
    """A recipe with one text replaced, and for each problem texts that path, reason and hint hold."""

    old: str
    new: str
    said: tuple[str, ...]
    text: str = ONE


VALUES = 'values = ["north", "south"]'
AS_TABLES = 'name = "{value}"\nvalues = '
SAME = "second stage of the name"

WRONG = {
    "no values": Wrong(VALUES, "", ("sequence.values|is missing",)),
    "empty": Wrong(VALUES, "values = []", ("sequence.values|must not be empty",)),
    "no list": Wrong(VALUES, 'values = "north"', ("sequence.values|must be a list",)),
    "no table": Wrong(f"[sequence]\n{VALUES}", "sequence = [1]", ("sequence|must be a table",)),
    "unknown key": Wrong(
        "values =", "valeus =", ("sequence.values|is missing", "sequence.valeus|did you mean `values`")
    ),
    "nothing changes": Wrong(
        "{value}", "{valu}", ("sequence.values|change nothing: `{value}` stands nowhere",),
        ONE.replace("{value}", "x", 1),
    ),
    "twice": Wrong('"south"]', '"north"]', (f"sequence.values.2|{SAME} `north`",)),
    "retain": Wrong('"south"]', '"retain"]', ("sequence.values.2|`retain` is the task",)),
    "no name": Wrong('"south"]', '"/"]', ("sequence.values.2|the name ''|say it with `name`",)),
    "long name": Wrong('"south"]', f'"{"x" * 101}"]', ("sequence.values.2|cannot be used",)),
    "name of nothing": Wrong(
        VALUES, f'name = "{{number}}{{valu}}"\n{VALUES}', ("sequence.name|`{valu}`|did you mean `value`",)
    ),
    "mixed": Wrong('"south"]', '{ value = "s" }]', ("sequence.values.1|is no table",)),
    "tables without a name": Wrong(
        VALUES, 'values = [{ value = "n" }]', ('sequence.name|is missing|name = "{value}"',)
    ),
    "other keys": Wrong(
        VALUES, AS_TABLES + '[{ value = "a" }, { valu = "b" }]',
        ("sequence.values.2.value|is missing", "sequence.values.2.valu|not in the first|did you mean `value`"),
    ),
    "bad key": Wrong(VALUES, AS_TABLES + '[{ "a b" = 1 }]', ("sequence.values.1.a b|cannot be used",)),
    "unused key": Wrong(
        VALUES, AS_TABLES + '[{ value = "a", more = 1 }]', ("sequence.values|`{more}` stands nowhere",)
    ),
    "a list within a text": Wrong(
        '"south"]', '["a", "b"]]',
        (
            "data.train.path|holds `{value}` within a text, and the value is ['a', 'b']",
            "sequence.values.2|must be text, got ['a', 'b'] (as data.test.path)",
        ),
    ),
    "a value of the wrong type": Wrong(
        "rank = 8", 'rank = "{value}"',
        (
            "sequence.values.1|must be a whole number, got 'north' (as adaptation.rank)",
            "sequence.values.2|must be a whole number, got 'south'",
        ),
    ),
    "a mistake in the template": Wrong('path = "{value}"', 'path = "{value}", pth = 1', ("data.test.pth|unknown key",)),
    "in the model": Wrong(
        '{ use = "tiny" }', '{ use = "tiny", dtype = "{value}" }', ("model|holds `{value}`", "model.dtype|must be")
    ),
    "in retained rows": Wrong(
        "[data]",
        '[data]\nretain = { use = "rows", path = "{value}" }\nretain_test = { use = "rows", path = "r" }',
        ("data.retain|holds `{value}`, and is one for all stages",),
    ),
    "beside stages": Wrong(
        "[data]", '[[stage]]\nname = "a"\n[stage.data]', ("sequence|beside [[stage]]|sequence = {",),
        ONE.replace(GUARD, ""),
    ),
    "unknown key of a template": Wrong(
        'name = "regions"', 'name = "regions"\ntrianing = {}',
        ("stage.regions.trianing|did you mean `training`",), BETWEEN,
    ),
    "mistake in a template": Wrong(
        "{ steps", "{ stps = 1, steps", ("stage.regions.training.stps|did you mean `steps`",), BETWEEN
    ),
    "in a default beside stages": Wrong(
        '{ epochs = 2 }', '{ epochs = "{steps}" }',
        (
            "training|holds `{steps}`, and is a default of all stages|write it at stage.regions.training",
            "training.epochs|must be",
        ),
        BETWEEN,
    ),
    "a template without a name": Wrong(
        'name = "regions"', "", ("stage.2.name|is missing|for the sequence",), BETWEEN
    ),
    "the name of another stage": Wrong(
        '"{number}-{of}"', '"first"',
        (f"stage.regions.sequence.values.1|{SAME} `first`", f"stage.regions.sequence.values.2|{SAME}"), BETWEEN,
    ),
    "too many": Wrong(VALUES, f"values = {list(range(1001))}", ("sequence.values|must have at most 1000 entries",)),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_told_where_it_was_written(name: str, read: Read) -> None:
    wrong = WRONG[name]
    assert wrong.old in wrong.text
    with pytest.raises(RecipeError) as raised:
        read(wrong.text.replace(wrong.old, wrong.new, 1))
    told = [f"{p.path}: {p.reason} {p.hint}" for p in raised.value.problems]
    assert len(told) == len(wrong.said), told
    for texts in wrong.said:
        place, *parts = texts.split("|")
        assert any(line.startswith(f"{place}: ") and all(part in line for part in parts) for line in told), told


def test_a_problem_of_some_stages_names_them(read: Read) -> None:
    text = BETWEEN.replace("rank = 3", "rank = 0").replace('rank = "{rank}"', 'rank = "{rank}", dora = 1')
    with pytest.raises(RecipeError) as raised:
        read(text, "stage.2-x-y.training.epochs=0")
    told = {p.path: p.reason for p in raised.value.problems}
    assert told["stage.regions.sequence.values.2.rank"] == "must be above 0, got 0 (as adaptation.rank)"
    assert told["stage.regions.adaptation.dora"] == "must be true or false, got 1"
    assert told["stage.regions.training.epochs"] == "must be above 0, got 0 (in stage 2-x-y)"


def test_a_recipe_without_a_sequence_reads_braces_as_text(read: Read) -> None:
    assert read(PIPELINE.replace("first.jsonl", "{value}")).stages[0].data.train.options.path == "{value}"
