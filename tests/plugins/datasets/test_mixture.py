"""The data set `mixture`: shares by counting, what happens when a part runs out, and what it refuses."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ftk import RecipeError, UserError
from ftk.cli.check import describe
from ftk.data.cache import Cache
from ftk.data.roles import RoleRows
from ftk.data.rows import Asked, RowReader, Rows
from ftk.parts import Objective
from ftk.plugin.discovery import load_registry
from ftk.recipe.building import build
from ftk.recipe.levels import Reader
from ftk.recipe.reading import Recipe, recipe_from_table
from ftk_plugins.datasets.mixture.mixture import Mixture
from ftk_plugins.datasets.mixture.options import MixtureOptions
from tests.core.test_docs import completed

BUILTIN = load_registry(third_party=False)
SOURCE = {"use": "files", "path": "x"}
Table = dict[str, Any]


def mixed(counts: dict[str, int], told: dict[str, Table] | None = None, **options: Any) -> list[tuple[str, int]]:
    """The mix of parts of these sizes, as (part, row)."""
    parts = {name: {**SOURCE, **(told or {}).get(name, {})} for name in counts}
    order = Mixture(MixtureOptions(parts=parts, **options)).order(counts)
    names = list(counts)
    return [(names[part], row) for part, row in order.tolist()]


def shares_of(mix: list[tuple[str, int]]) -> dict[str, float]:
    return {name: count / len(mix) for name, count in Counter(name for name, _ in mix).items()}


def test_parts_go_by_size_and_every_row_comes_once() -> None:
    mix = mixed({"a": 30, "b": 10, "c": 7})
    assert sorted(mix) == [(name, row) for name, count in (("a", 30), ("b", 10), ("c", 7)) for row in range(count)]
    assert [row for name, row in mix if name == "a"] != list(range(30)), "in a random order"


@pytest.mark.parametrize("temperature", [0.5, 2.0, 10.0])
def test_a_temperature_levels_or_sharpens_the_shares(temperature: float) -> None:
    sizes = {"a": 9000, "b": 1000, "c": 100}
    mix = mixed(sizes, temperature=temperature, when_out="repeat", limit=5000)
    powers = np.array(list(sizes.values()), float) ** (1 / temperature)
    got = shares_of(mix)
    assert [got[name] for name in sizes] == pytest.approx(powers / powers.sum(), abs=1 / 5000)


def test_a_fixed_share_is_one_of_the_final_mix_and_the_others_divide_the_rest_by_weight() -> None:
    told = {"old": {"share": 0.2}, "a": {"weight": 3}, "b": {"weight": 1}}
    mix = mixed({"old": 50, "a": 1000, "b": 1000}, told)
    assert shares_of(mix) == pytest.approx({"old": 0.2, "a": 0.6, "b": 0.2})
    assert len(mix) == 250, "50 rows are a fifth of it"
    assert shares_of(mix[:25]) == pytest.approx({"old": 0.2, "a": 0.6, "b": 0.2}, abs=1 / 25), "from the start on"


def test_it_stops_when_one_part_runs_out_or_repeats_until_all_have() -> None:
    told = {"a": {"weight": 1}, "b": {"weight": 1}}
    stopped = mixed({"a": 10, "b": 35}, told)
    assert Counter(name for name, _ in stopped) == {"a": 10, "b": 10}
    assert len(set(stopped)) == 20, "no row twice"
    repeated = mixed({"a": 10, "b": 35}, told, when_out="repeat")
    assert Counter(name for name, _ in repeated) == {"a": 35, "b": 35}
    rows = [row for name, row in repeated if name == "a"]
    assert sorted(rows[:10]) == sorted(rows[10:20]) == list(range(10)), "each once before one comes again"
    assert rows[:10] != rows[10:20], "in another order"
    assert max(Counter(rows).values()) - min(Counter(rows).values()) == 1


def test_the_seed_decides_the_order_and_nothing_else_does() -> None:
    sizes = {"a": 40, "b": 20}
    assert mixed(sizes) == mixed(sizes)
    assert mixed(sizes) != mixed(sizes, seed=1)
    of_a = [row for name, row in mixed(sizes) if name == "a"]
    assert of_a == [row for name, row in mixed({**sizes, "c": 20}) if name == "a"], "another part changes no part"
    limited = mixed(sizes, limit=12)
    assert Counter(name for name, _ in limited) == {"a": 8, "b": 4}


@pytest.mark.parametrize("seed", range(30))
def test_however_it_is_asked_the_counts_are_the_nearest_to_the_shares(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = {name: int(rng.integers(20, 400)) for name in "abcd"}
    told = {name: {"weight": float(rng.uniform(1, 5))} for name in sizes}
    whole = sum(part["weight"] for part in told.values())
    for when_out in ("stop", "repeat"):
        mix = mixed(sizes, told, when_out=when_out)
        counts = Counter(name for name, _ in mix)
        assert all(abs(counts[name] - len(mix) * told[name]["weight"] / whole) < 1 for name in sizes)
        drawn = Counter(mix)
        if when_out == "stop":
            assert set(drawn.values()) == {1}
            assert any(counts[name] >= sizes[name] - 1 for name in sizes), "a part ran out"
        else:
            assert len(drawn) == sum(sizes.values()), "every row of every part"


@pytest.mark.parametrize(
    ("counts", "told", "options", "words"),
    [
        ({"a": 5, "b": 5}, {"a": {"share": 0.999}}, {}, "the mix has 5 rows, and the share of `b`, 0.10%, is none"),
        (
            {"a": 5000, "b": 5}, {"a": {"share": 0.001}}, {"when_out": "repeat"},
            "until every row of `a` came, the mix has 5,000,000 rows; there are 5,005",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_mixed(counts: dict[str, int], told: dict[str, Table], options: Table, words: str) -> None:
    with pytest.raises(UserError, match=words):
        mixed(counts, told, **options)


@pytest.mark.parametrize(
    ("parts", "options", "place", "words"),
    [
        ({}, {}, "parts", "must not be empty"),
        ({"a": {**SOURCE, "weight": 2}}, {}, "", "`a` is alone, and its `weight` weighs it against nothing"),
        ({"a": SOURCE, "b": {**SOURCE, "weigth": 2}}, {}, "parts.b.weigth", "unknown key"),
        ({"a": SOURCE, "b": "x.jsonl"}, {}, "parts.b", "must be a table"),
        ({"a": SOURCE, "b": {"path": "x"}}, {}, "parts.b.use", "is missing"),
        ({"a": SOURCE, "b": {"use": "fils", "path": "x"}}, {}, "parts.b.use", "unknown dataset `fils`"),
        ({"a": SOURCE, "b": {**SOURCE, "limt": 3}}, {}, "parts.b.limt", "unknown key"),
        ({"a": SOURCE, "b": {**SOURCE, "transform": [{"use": "x"}]}}, {}, "parts.b.transform.1.use", "unknown"),
        ({"a": SOURCE, "b": {**SOURCE, "name": "c"}}, {}, "parts.b.name", "its name is `b`"),
        ({"a": SOURCE, "b c": SOURCE}, {}, "parts.b c", "cannot be used"),
        ({"a": SOURCE, "b": {**SOURCE, "weight": 0}}, {}, "parts.b.weight", "above 0"),
        ({"a": SOURCE, "b": {**SOURCE, "weight": "2"}}, {}, "parts.b.weight", "must be a number"),
        ({"a": SOURCE, "b": {**SOURCE, "weight": 2}}, {}, "", "part `a` has no `weight`"),
        ({"a": SOURCE, "b": {**SOURCE, "weight": 2, "share": 0.1}}, {}, "", "`b` has a `weight` and a `share`"),
        ({"a": {**SOURCE, "share": 0.5}, "b": {**SOURCE, "share": 0.4}}, {}, "", "add up to 0.9"),
        (
            {"a": {**SOURCE, "share": 0.5}, "b": {**SOURCE, "share": 0.5}, "c": SOURCE}, {}, "",
            "leave nothing for part `c`",
        ),
        ({"a": {**SOURCE, "share": 0.5}, "b": SOURCE}, {"temperature": 2}, "", "`temperature` changes nothing"),
    ],
)  # fmt: skip
def test_what_a_check_refuses_and_where(parts: Table, options: Table, place: str, words: str) -> None:
    reader = Reader(BUILTIN)
    assert reader.part("dataset", {"use": "mixture", "parts": parts, **options}, "data.train") is None
    (problem,) = reader.problems
    assert problem.path == f"data.train.{place}".rstrip(".")
    assert words in problem.reason


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Table], Rows]:
    """Reads a recipe's rows; `a.jsonl` has 30, `b.jsonl` 10, `other.jsonl` 4 with another column."""
    monkeypatch.chdir(tmp_path)
    texts: dict[str, list[Table]] = {
        "a": [{"text": f"a {n}", "n": n} for n in range(30)],
        "b": [{"text": f"b {n}", "n": n} for n in range(10)],
        "other": [{"words": f"other {n}", "n": n} for n in range(4)],
        "texts": [{"text": f"text {n}", "n": str(n)} for n in range(4)],
    }
    for name, rows in texts.items():
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def rows_of(data: Table) -> Rows:
        table = {"objective": {"use": "causal_lm"}, "data": data}
        spec = recipe(table).stages[0]
        asked = Asked("t", build(spec.objective, Objective), spec.objective, spec.data)
        return RowReader(Cache(tmp_path / "cache")).tasks([asked])[0]

    return rows_of


def recipe(table: Table) -> Recipe:
    return recipe_from_table({**completed(table), **table}, "r.toml", "", registry=BUILTIN)


def mixture(**parts: Table) -> Table:
    return {"use": "mixture", "parts": {name: {"use": "files", **part} for name, part in parts.items()}}


def texts(found: RoleRows) -> Counter[str]:
    return Counter(row["text"].split()[0] for row in found.rows)


def test_parts_are_read_with_their_own_options_transforms_and_splits(read: Callable[[Table], Rows]) -> None:
    of_b = {"use": "map_columns", "constants": {"source": "b"}, "drop": ["n"]}
    of_a = {"use": "map_columns", "constants": {"source": "a"}, "drop": ["n"]}
    train = mixture(
        a={"path": "a.jsonl", "weight": 2, "test_fraction": 0.2, "transform": [of_a]},
        b={"path": "b.jsonl", "weight": 1, "transform": [of_b]},
    )
    for _ in range(2):  # the second time out of the cache
        rows = read({"train": {**train, "transform": [{"use": "filter", "min_characters": 1}]}})
        found = rows.roles["train"]
        assert texts(found) == {"a": 20, "b": 10}
        assert {(row["text"][0], row["source"]) for row in found.rows} == {("a", "a"), ("b", "b")}
        assert texts(rows.roles["test"]) == {"a": 6}, "each row that is kept back once, and no other"
        assert not {row["text"] for row in found.rows} & {row["text"] for row in rows.roles["test"].rows}
        told = {share.name: (share.drawn, share.distinct, len(share.found.rows)) for share in found.shares}
        assert told == {"a": (20, 20, 24), "b": (10, 10, 10)}
        assert [step.name for step in found.shares[0].found.steps] == ["map_columns"]
        assert found.shares[0].found.place == "data.train.parts.a"
        assert [step.name for step in found.steps] == ["filter"]


def test_changed_content_of_a_part_changes_the_mix(read: Callable[[Table], Rows]) -> None:
    train = {"train": mixture(a={"path": "a.jsonl"}, b={"path": "b.jsonl"})}
    before = read(train).roles["train"]
    Path("b.jsonl").write_text('{"text": "new 1", "n": 1}\n', encoding="utf-8")
    after = read(train).roles["train"]
    assert texts(after) == {"a": 30, "new": 1}
    assert before.key != after.key


def test_a_mixture_may_stand_in_a_mixture_and_its_rows_may_be_tested(read: Callable[[Table], Rows]) -> None:
    inner = mixture(a={"path": "a.jsonl", "limit": 4}, b={"path": "b.jsonl", "limit": 4})
    outer: Table = {"use": "mixture", "parts": {"inner": inner, "rest": {"use": "files", "path": "a.jsonl"}}}
    outer["parts"]["inner"]["share"] = 0.5
    assert texts(read({"train": outer}).roles["train"]) == {"a": 12, "b": 4}
    both = mixture(a={"path": "a.jsonl"}, b={"path": "b.jsonl"})
    tested = read({"train": {"use": "files", "path": "a.jsonl"}, "test": both})
    assert texts(tested.roles["test"]) == {"a": 30, "b": 10}


def test_parts_with_other_columns_are_refused_by_name(read: Callable[[Table], Rows]) -> None:
    with pytest.raises(
        UserError, match=r"data.train: the columns of part `o` are not those of `a`: `a` alone has text;"
    ):
        read({"train": mixture(a={"path": "a.jsonl"}, o={"path": "other.jsonl"})})
    with pytest.raises(
        UserError, match=r"data.train: .* different types: `n` is .*int64.* in `a` and .*string.* in `t`"
    ):
        read({"train": mixture(a={"path": "a.jsonl"}, t={"path": "texts.jsonl"})})
    with pytest.raises(UserError, match=r"data.train.parts.b: .*nowhere"):
        read({"train": mixture(a={"path": "a.jsonl"}, b={"path": "nowhere.jsonl"})})


def test_it_has_test_rows_where_a_part_has() -> None:
    bare = mixture(a={"path": "a.jsonl"}, b={"path": "b.jsonl"})
    table = {"objective": {"use": "causal_lm"}, "evaluator": [{"use": "perplexity"}], "data": {"train": bare}}
    with pytest.raises(RecipeError, match="there are no test rows to measure on"):
        recipe(table)
    bare["parts"]["b"]["test_fraction"] = 0.5
    recipe(table)


def test_two_spellings_of_one_mixture_are_one_recipe() -> None:
    table = {"objective": {"use": "causal_lm"}}
    one = recipe({**table, "data": {"train": mixture(a={"path": "a.jsonl"}, b={"path": "b.jsonl"})}})
    other = recipe({**table, "data": {"train": mixture(a={"path": "a.jsonl", "seed": 0}, b={"path": "b.jsonl"})}})
    third = recipe({**table, "data": {"train": mixture(a={"path": "a.jsonl", "seed": 1}, b={"path": "b.jsonl"})}})
    fourth = recipe({**table, "data": {"train": mixture(a={"path": "a.jsonl", "share": 0.5}, b={"path": "b.jsonl"})}})
    assert one.sha256 == other.sha256
    assert len({one.sha256, third.sha256, fourth.sha256}) == 3


def test_a_check_shows_each_part_with_what_the_mix_says_of_it() -> None:
    parts = mixture(a={"path": "a.jsonl", "share": 0.5}, b={"path": "b.jsonl", "limit": 3})
    spec = Reader(BUILTIN).part("dataset", {**parts, "seed": 1}, "data.train")
    assert spec is not None
    assert describe(spec) == "mixture seed=1 of a (files) path='a.jsonl' share=0.5, b (files) limit=3 path='b.jsonl'"
