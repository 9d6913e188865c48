"""Holds `world_facts` to its rows: every option is felt, and no held-out question was ever taught."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from ftk_plugins.datasets.world_facts.facts import (
    KIND_OF,
    LANGUAGES,
    RELATIONS,
    SOURCE_OF,
)
from ftk_plugins.datasets.world_facts.options import WorldFactsOptions
from ftk_plugins.datasets.world_facts.templates import WORDINGS
from ftk_plugins.datasets.world_facts.world_facts import WorldFacts


def options(**table: Any) -> WorldFactsOptions:
    """The options as a recipe gives them: strictly, from lists and texts."""
    return WorldFactsOptions.model_validate_json(json.dumps(table), strict=True)


def rows(**table: Any) -> list[dict[str, Any]]:
    return WorldFacts(options(**table)).rows("train").to_list()


def column(name: str, **table: Any) -> list[Any]:
    return [row[name] for row in rows(**table)]


@pytest.fixture(scope="module")
def everything() -> list[dict[str, Any]]:
    return rows(templates="all")


def test_every_relation_has_a_kind_a_source_and_wordings() -> None:
    assert set(KIND_OF) == set(SOURCE_OF) == set(WORDINGS) == set(RELATIONS)
    assert all(set(wordings) == set(LANGUAGES) for wordings in WORDINGS.values())


def test_templates_are_enough_and_none_is_in_both_sets() -> None:
    wordings = [wording for by_language in WORDINGS.values() for wording in by_language.values()]
    train = [template for wording in wordings for template in wording.train]
    held_out = [template for wording in wordings for template in wording.held_out]
    assert all(len(wording.train) >= 4 and len(wording.held_out) >= 2 for wording in wordings)
    assert len({*train, *held_out}) == len(train) + len(held_out)
    for template in train + held_out:
        assert template.count("{subject}") == 1
        assert template[-1] in "?.？。"


def test_no_question_is_asked_twice_and_none_of_the_held_out_was_trained_on(
    everything: list[dict[str, Any]],
) -> None:
    questions = [row["instruction"] for row in everything]
    assert len(set(questions)) == len(questions)
    train, held_out = set(column("instruction")), set(column("instruction", templates="held_out"))
    assert not train & held_out
    assert train | held_out == set(questions)


def test_a_row() -> None:
    found = rows(relations="capital", languages="en", subjects="Netherlands", templates_per_fact=1)
    assert found == [
        {
            "instruction": "What is the capital of the Netherlands?",
            "input": "",
            "output": "Amsterdam",
            "keywords": ["Amsterdam"],
            "text": "What is the capital of the Netherlands? Amsterdam",
            "subject": "Netherlands",
            "code": "NL",
            "relation": "capital",
            "language": "en",
            "source": "constitutional or official seat; names after Unicode CLDR",
        }
    ]
    chinese = rows(relations="number", languages="zh", subjects="Fe", templates_per_fact=1)[0]
    assert chinese["text"] == "铁的原子序数是多少？26"
    assert (chinese["subject"], chinese["code"]) == ("铁", "Fe")


def test_rows_are_complete_and_their_keywords_stand_in_their_answers(
    everything: list[dict[str, Any]],
) -> None:
    assert len(everything) == 9 * 2 * (192 + 4 * 193 + 2 * 118)
    for row in (*everything, *rows(answers="sentence")):
        assert all(row[name] for name in row if name != "input")
        assert row["input"] == ""
        assert row["instruction"][0] == row["instruction"][0].upper()
        assert row["text"].startswith(row["instruction"])
        assert row["text"].endswith(row["output"])
        assert all(word.casefold() in row["output"].casefold() for word in row["keywords"])
        assert "{" not in row["text"]
        assert len(row["text"]) < 160


def test_order_is_relation_subject_language_template() -> None:
    found = rows(relations=["number", "symbol"], languages=["zh", "en"], limit=2, templates_per_fact=2)
    assert [(row["relation"], row["code"], row["language"]) for row in found] == [
        (relation, code, language)
        for relation in ("number", "symbol")
        for code in ("H", "He")
        for language in ("zh", "en")
        for _ in range(2)
    ]


def test_every_split_gives_the_same_rows() -> None:
    source = WorldFacts(options(relations="symbol", limit=3))
    assert source.splits() == ()
    assert source.rows("train").to_list() == source.rows("validation").to_list() == source.rows("test").to_list()


def test_relations_and_languages_choose() -> None:
    assert set(column("relation")) == set(RELATIONS)
    assert set(column("relation", relations=["currency", "symbol"])) == {"currency", "symbol"}
    assert set(column("language")) == {"en", "zh"}
    assert set(column("language", languages=["zh"])) == {"zh"}


def test_templates_and_templates_per_fact_choose_wordings() -> None:
    wording = WORDINGS["capital"]["en"]
    chosen = {"relations": "capital", "languages": "en", "subjects": "Peru"}
    for templates, expected in (
        ("train", wording.train),
        ("held_out", wording.held_out),
        ("all", wording.train + wording.held_out),
    ):
        asked = [question.format(subject="Peru") for question in expected]
        assert column("instruction", **chosen, templates=templates) == asked
        assert column("instruction", **chosen, templates=templates, templates_per_fact=2) == asked[:2]


def test_answers_as_sentences() -> None:
    chosen = {"subjects": ["Bahamas"], "templates_per_fact": 1}
    assert column("output", **chosen, relations="currency", answers="sentence") == [
        "The currency of the Bahamas is the Bahamian dollar.",
        "巴哈马的货币是巴哈马元。",
    ]
    assert column("keywords", **chosen, relations="currency", answers="sentence") == [
        ["Bahamian dollar"],
        ["巴哈马元"],
    ]


def test_subjects_by_name_and_code() -> None:
    asked = ["日本", "the gambia", "FR", "BRA", "Francium", "Fe"]
    found = column("code", relations=["iso_code", "symbol"], subjects=asked, languages="en", templates_per_fact=1)
    assert found == ["BR", "FR", "GM", "JP", "Fe", "Fr"]  # in the order of the tables, whatever the recipe's


def test_offset_and_limit_cut_disjoint_sets_and_shuffling_mixes_them() -> None:
    def codes(**cut: int) -> list[str]:
        return list(dict.fromkeys(column("code", relations="iso_code", languages="en", **cut)))

    assert codes(limit=3) == ["AD", "AE", "AF"]
    assert codes(offset=190) == ["ZA", "ZM", "ZW"]
    for shuffled in ({}, {"shuffle_seed": 0}):
        assert codes(limit=100, **shuffled) + codes(offset=100, **shuffled) == codes(**shuffled)
    assert codes(shuffle_seed=0) != codes(shuffle_seed=1)
    assert sorted(codes(shuffle_seed=0)) == sorted(codes(shuffle_seed=1)) == codes()


def test_a_shuffled_cut_takes_the_same_countries_for_every_relation() -> None:
    cut = {"shuffle_seed": 7, "offset": 40, "limit": 60}
    assert set(column("code", relations="capital", **cut)) <= set(column("code", relations="currency", **cut))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"relations": []}, "at least 1 item"),
        ({"relations": "capitol"}, "'capital'"),
        ({"relations": ["symbol", "symbol"]}, "`relations` lists 'symbol' twice"),
        ({"languages": ["en", "fr"]}, "'zh'"),
        ({"languages": ["en", "en"]}, "`languages` lists 'en' twice"),
        ({"templates": "test"}, "'held_out'"),
        ({"templates_per_fact": 0}, "greater than 0"),
        (
            {"templates": "held_out", "templates_per_fact": 4},
            "`templates` = 'held_out' gives 3 for capital in 'en'",
        ),
        ({"answers": "long"}, "'sentence'"),
        ({"relations": "capital", "subjects": ["Frence"]}, "did you mean `France`"),
        ({"subjects": ["Atlantis-on-Sea"]}, "give a name, an ISO 3166-1 code or a symbol"),
        (
            {"relations": "capital", "subjects": ["iron"]},
            "'iron' is an element, and `relations` asks about none",
        ),
        ({"subjects": ["France"]}, "names no element, yet `relations` asks about elements"),
        ({"relations": "capital", "subjects": ["France", "FRA"]}, "`subjects` names France twice"),
        ({"relations": "capital", "subjects": ["Israel"]}, "no undisputed capital"),
        ({"relations": "capital", "offset": 193}, "`offset` 193 leaves none of the 193 countries"),
        ({"relations": "symbol", "offset": 100, "limit": 19}, "18 of the 118 elements are left"),
        ({"limit": 0}, "greater than 0"),
        ({"offset": -1}, "greater than or equal to 0"),
        ({"relation": "capital"}, "Extra inputs are not permitted"),
    ],
)
def test_impossible_options_are_refused_before_any_run(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as refused:
        options(**table)
    assert message in str(refused.value)


def test_checking_the_options_imports_nothing_heavy() -> None:
    code = (
        "import sys; from ftk_plugins.datasets.world_facts.options import WorldFactsOptions as O; O(limit=5);"
        "sys.exit(', '.join({'torch', 'transformers', 'datasets', 'numpy'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
