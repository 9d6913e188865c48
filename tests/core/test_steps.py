"""What rows go through before they are encoded: told, kept with the rows, and shown the test sets where asked."""

import json
from pathlib import Path

import pytest

from ftk.data.cache import Cache
from ftk.data.rows import Asked, RowReader
from ftk.errors import RecipeError, RunFailed, UserError
from ftk.parts import Effect, Objective, Tally
from ftk.plugin.discovery import load_registry
from ftk.plugin.registry import Entry, Registry
from ftk.plugin.variant import Variant
from ftk.recipe.building import build
from ftk.recipe.reading import recipe_from_table
from tests.core.step_parts import CALLS, Halves, Odd, Other, Picky, Unseen, Void


@pytest.fixture(autouse=True)
def registry(monkeypatch) -> Registry:
    CALLS.clear()
    variants = [
        Variant(
            name=part.__name__.lower(), summary="Of the test.", options="ftk:Options",
            build=f"tests.core.step_parts:{part.__name__}", needs=("test-texts",) if part is Unseen else (),
        )
        for part in (Odd, Halves, Unseen, Other, Void, Picky)
    ]  # fmt: skip
    entries = [Entry("transform", variant, "of-the-test", "1", "test") for variant in variants]
    return Registry((), (*load_registry(third_party=False).entries(), *entries))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, first in {"train": 0, "test": 4, "old": 100, "old_test": 102, "probe": 7}.items():
        rows = [{"text": f"row {n}"} for n in range(first, first + 10)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def recipe(folder: Path, registry: Registry, data: dict, **tables):
    def with_path(table):
        return {"use": "files", "path": str(folder / f"{table.pop('file')}.jsonl"), **table}

    made = {key: with_path(dict(table)) for key, table in data.items() if key != "probes"}
    if "probes" in data:
        made["probes"] = {name: with_path(dict(table)) for name, table in data["probes"].items()}
    table = {
        "name": "r", "model": {"use": "scratch"}, "objective": {"use": "causal_lm"}, "adaptation": {"use": "full"},
        "data": made, **tables,
    }  # fmt: skip
    return recipe_from_table(table, "r.toml", "", registry=registry)


def read(folder: Path, registry: Registry, data: dict):
    made = recipe(folder, registry, data)
    sets = [("retain", made.retained_data()), ("r", made.stages[0].data)]
    objective = made.stages[0].objective
    asked = [Asked(name, build(objective, Objective), objective, found) for name, found in sets if found is not None]
    return RowReader(Cache(folder / "cache")).tasks(asked)


def using(*names: str) -> list[dict]:
    return [{"use": name} for name in names]


def test_each_step_is_told_and_kept_with_the_rows(folder, registry):
    data = {"train": {"file": "train", "transform": using("odd", "halves")}}
    for _ in range(2):
        train = read(folder, registry, data)[0].roles["train"]
        assert train.rows["text"][:] == ["row 0", "row 2"]
        odd, halves = train.steps
        assert (odd.place, odd.name, odd.before, odd.after) == ("data.train.transform.1", "odd", 10, 5)
        assert odd.effects == (Effect("dropped", "of an odd number", 5, ("row 1", "row 3", "row 5")),)
        assert (halves.place, halves.before, halves.after, halves.effects) == ("data.train.transform.2", 5, 2, ())
    assert CALLS == ["odd"], "the second time both come from the cache"


def test_a_tally_shortens_examples_and_counts_nothing_as_nothing():
    tally = Tally()
    tally.changed("long", "x" * 1000)
    tally.made("from nothing", rows=0)
    (effect,) = tally.effects()
    assert (effect.fate, len(effect.examples[0]), effect.examples[0][-1]) == ("changed", 300, "…")


def test_what_shapes_training_leaves_kept_back_rows_alone(folder, registry):
    divided = {"file": "train", "test_fraction": 0.2, "validation_fraction": 0.2, "transform": using("halves")}
    (rows,) = read(folder, registry, {"train": divided})
    assert {role: len(found.rows) for role, found in rows.roles.items()} == {"train": 3, "validation": 2, "test": 2}
    named = {"train": {"file": "train"}, "test": {"file": "test", "transform": using("halves")}}
    (rows,) = read(folder, registry, named)
    assert len(rows.roles["test"].rows) == 5, "where it stands beside the test set itself, it acts"


def test_a_transform_that_asks_is_shown_every_test_set(folder, registry):
    data = {
        "train": {"file": "train", "transform": using("unseen")},
        "test": {"file": "test"},
        "probes": {"p": {"file": "probe"}},
        "retain": {"file": "old", "transform": using("unseen")},
        "retain_test": {"file": "old_test"},
    }
    old, new = read(folder, registry, data)
    assert new.roles["train"].rows["text"][:] == [f"row {n}" for n in range(4)]
    assert old.roles["train"].rows["text"][:] == ["row 100", "row 101"]
    places = [list(json.loads(call.removeprefix("unseen "))) for call in CALLS]
    assert places == [["data.retain_test", "data.test", "data.probes.p"]] * 2


def test_other_test_rows_are_looked_at_anew(folder, registry):
    data = {"train": {"file": "train", "transform": using("unseen")}, "test": {"file": "test"}}
    assert len(read(folder, registry, data)[0].roles["train"].rows) == 4
    assert len(read(folder, registry, data)[0].roles["train"].rows) == 4
    assert len(CALLS) == 1
    (folder / "test.jsonl").write_text('{"text": "row 0"}\n')
    assert len(read(folder, registry, data)[0].roles["train"].rows) == 9


@pytest.mark.parametrize(
    ("name", "error", "told"),
    [
        ("void", UserError, "data.train.transform.2: `void` leaves none of 2 rows: 1 of an odd number"),
        ("picky", UserError, "data.train.transform.2: there is no column `body`\n  name one"),
        ("other", RunFailed, "data.train.transform.2: `other` gave a list, not a datasets.Dataset"),
    ],
)
def test_mistakes_are_told_with_the_place(folder, registry, name, error, told):
    with pytest.raises(error) as caught:
        read(folder, registry, {"train": {"file": "train", "limit": 5, "transform": using("halves", name)}})
    assert told in str(caught.value)


def test_a_test_row_that_cannot_be_read_is_told_by_its_own_place(folder, registry):
    (folder / "test.jsonl").write_text('{"text": null}\n{"text": ["row 0"]}\n')
    data = {"train": {"file": "train", "transform": using("unseen")}, "test": {"file": "test"}}
    with pytest.raises(UserError, match=r"^data\.test, row 2: "):
        read(folder, registry, data)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"train": {"file": "train", "transform": using("unseen")}}, "data.train.transform.1: `unseen` compares with"),
        (
            {"train": {"file": "train"}, "test": {"file": "test", "transform": using("unseen")}},
            "data.test.transform.1: `unseen` takes test rows out of training rows, and these are not trained on",
        ),
        (
            {"train": {"file": "train"}, "probes": {"p": {"file": "test", "transform": using("unseen")}}},
            "data.probes.p.transform.1: `unseen` takes",
        ),
    ],
)
def test_comparing_with_test_rows_where_that_cannot_be_is_refused(folder, registry, data, told):
    with pytest.raises(RecipeError) as caught:
        recipe(folder, registry, data)
    assert told in str(caught.value)


def test_test_rows_that_a_source_keeps_back_count(folder, registry):
    divided = {"file": "train", "test_fraction": 0.2, "transform": using("unseen", "halves")}
    (rows,) = read(folder, registry, {"train": divided})
    assert {role: len(found.rows) for role, found in rows.roles.items()} == {"train": 4, "test": 2}
