"""Holds `augment` to what each operation does with a text, how often, and to what it refuses."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from ftk.errors import RecipeError, UserError
from ftk.testing import Subject
from ftk_plugins.transforms.augment.options import AugmentOptions
from ftk_plugins.transforms.augment.texts import changed, operations
from tests.plugins.transforms.applying import apply, told

TEXT = "  The quick brown fox,\n\njumps over   the lazy dog! "
OFF = {"deletion": 0.0, "swap": 0.0}


def copies(text: str = TEXT, count: int = 300, **options: object) -> list[str]:
    (operation,) = operations(AugmentOptions(columns=["text"], **{**OFF, **options}))
    made = [changed(text, operation, Random(n)) for n in range(count)]
    return [text if copy is None else copy for copy in made]


def is_subsequence(words: list[str], of: list[str]) -> bool:
    left = iter(of)
    return all(word in left for word in words)


def test_deletion_leaves_words_out_by_chance() -> None:
    made = copies(deletion=0.3)
    assert all(is_subsequence(copy.split(), TEXT.split()) for copy in made)
    counts = [len(copy.split()) for copy in made]
    assert min(counts) >= 1
    assert max(counts) == 8, "a copy that lost nothing loses one word"
    # Of 9 words each goes with 0.3; where none did, one goes: 9 · 0.7 - 0.7⁹ are left on average.
    assert sum(counts) / len(counts) == pytest.approx(9 * 0.7 - 0.7**9, abs=0.3)
    assert all(copy.startswith("  ") and copy.endswith(" ") for copy in made), "what stands around a text stays"
    assert "The quick brown fox,\n\njumps" in {copy.strip()[:27] for copy in made}
    assert set(copies("two words", deletion=0.99)) == {"two", "words"}
    assert set(copies("one", deletion=0.9)) == {"one"}


def test_swaps_change_places_and_nothing_else() -> None:
    made = copies(swap=0.1)
    assert all(Counter(copy.split()) == Counter(TEXT.split()) for copy in made)
    moved = [sum(a != b for a, b in zip(copy.split(), TEXT.split(), strict=True)) for copy in made]
    assert set(moved) == {2}, "one swap for nine words"
    assert max(sum(a != b for a, b in zip(c.split(), TEXT.split(), strict=True)) for c in copies(swap=1.0)) > 6
    assert {"".join(c if c.isspace() else "" for c in copy) for copy in made} == {
        "".join(c if c.isspace() else "" for c in TEXT)
    }
    pairs = Counter(copy for copy in copies("a b c", count=600, swap=0.1))
    assert set(pairs) == {"b a c", "c b a", "a c b"}
    assert min(pairs.values()) > 150, "each pair is as likely as another"


def test_words_become_one_of_their_synonyms() -> None:
    table = {"quick": ["fast", "swift"], "FOX": ["animal"], "dog": ["hound"], "sun": ["star"]}
    made = copies(synonyms=table)
    one = {
        TEXT.replace("quick", "fast"), TEXT.replace("quick", "swift"),
        TEXT.replace("fox", "animal"), TEXT.replace("dog", "hound"),
    }  # fmt: skip
    assert set(made) == one, "one word of nine, its punctuation beside it"
    every = set(copies(synonyms=table, replacement=1.0))
    assert every == {
        TEXT.replace("quick", w).replace("fox", "animal").replace("dog", "hound") for w in ("fast", "swift")
    }
    assert set(copies("Quick!", synonyms=table)) == {"Fast!", "Swift!"}
    assert set(copies("nothing known", synonyms=table)) == {"nothing known"}


def test_scripts_without_spaces_are_changed_by_the_character() -> None:
    assert set(copies("我爱你", swap=0.1)) == {"爱我你", "你爱我", "我你爱"}


def test_copies_stand_behind_their_row_and_take_turns_in_what_is_done() -> None:
    rows = [
        {"text": TEXT, "label": 1, "note": "n"},
        {"text": "one", "label": 0, "note": None},
        {"text": None, "label": 2},
    ]
    after, effects = apply("augment", rows, columns=["text"], copies=6, synonyms={"fox": ["cat"]})
    assert [row["label"] for row in after] == [1] * 7 + [0, 2], "a row of which nothing can be made stands alone"
    assert after[0]["text"] == TEXT
    assert [row["note"] for row in after[:7]] == ["n"] * 7
    assert after[1]["text"] == after[4]["text"] == TEXT.replace("fox", "cat")
    swapped, deleted = ([row["text"].split() for row in (after[n], after[n + 3])] for n in (2, 3))
    assert all(Counter(words) == Counter(TEXT.split()) and words != TEXT.split() for words in swapped)
    assert all(len(words) < 9 for words in deleted)
    assert told(effects) == {"made changed copies": 6}
    assert effects[0].examples == tuple(row["text"] for row in after[1:4])
    assert len(apply("augment", rows[:1], columns=["text"])[0]) == 5, "four copies by default"


def test_the_seed_decides_and_batches_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"text": f"{n} {TEXT}"} for n in range(30)]
    whole = apply("augment", rows, columns=["text"])
    assert apply("augment", rows, columns=["text"], seed=1) != whole
    monkeypatch.setattr("ftk_plugins.transforms.rows.BATCH_ROWS", 7)
    assert apply("augment", rows, columns=["text"]) == whole
    assert len({row["text"] for row in whole[0]}) > 120, "copies differ from each other"


def test_several_columns_are_changed_together() -> None:
    rows = [{"one": "a b c d", "two": "e f g h", "three": "i j"}]
    after, _ = apply("augment", rows, columns=["one", "two"], copies=1, deletion=0.0)
    assert after[1]["one"] != "a b c d"
    assert after[1]["two"] != "e f g h"
    assert after[1]["three"] == "i j"


def test_a_file_of_synonyms_is_read_and_what_is_in_it_is_part_of_the_cache(tmp_path: Path) -> None:
    file = tmp_path / "synonyms.json"
    file.write_text(json.dumps({"fox": ["cat"]}))
    options = {**OFF, "columns": ["text"], "copies": 1, "synonyms": str(file)}
    assert apply("augment", [{"text": "fox"}], **options)[0] == [{"text": "fox"}, {"text": "cat"}]
    before = Subject("transform", "augment", options).build().identity()
    file.write_text(json.dumps({"fox": ["dog"]}))
    assert Subject("transform", "augment", options).build().identity() != before
    for content, message in (
        ("{", "is no JSON"),
        ('{"fox": "cat"}', "must give each word a list"),
        ("[]", "must give each"),
        ("{}", "must give each word a list"),
    ):
        file.write_text(content)
        with pytest.raises(UserError, match=message):
            apply("augment", [{"text": "fox"}], **options)
    with pytest.raises(UserError, match=r"missing.json cannot be read: No such file"):
        apply("augment", [{"text": "fox"}], **{**options, "synonyms": str(tmp_path / "missing.json")})


def test_it_is_about_what_is_learned_alone() -> None:
    assert Subject("transform", "augment", {"columns": ["text"]}).build().training_only()


@pytest.mark.parametrize(
    ("rows", "options", "error", "message"),
    [
        ([{"txt": "a"}], {}, UserError, "`augment` finds no column `text`"),
        ([{"text": 1}], {}, UserError, "column `text` holds int64, neither texts nor images"),
        ([{"text": ["a"]}], {}, UserError, "neither texts nor images"),
        ([{"text": "a"}], OFF, UserError, "nothing is left to do with texts"),
        ([{"text": "a"}], {"flip": 0.3}, UserError, "`flip` acts on images, and `columns` names none"),
        ([{"text": [[1, 2], [3, 4]]}], {"swap": 0.3}, UserError, "`swap` acts on texts, and `columns` names none"),
        ([{"text": "a"}], {"replacement": 0.3}, RecipeError, "`replacement` acts with `synonyms` alone"),
        ([{"text": "a"}], {"synonyms": {}}, RecipeError, "has no word that could be replaced"),
        ([{"text": "a"}], {"columns": ["text", "text"]}, RecipeError, "names a column twice"),
    ],
)
def test_what_cannot_act_is_refused(rows, options, error, message) -> None:
    with pytest.raises(error) as caught:
        apply("augment", rows, **{"columns": ["text"], **options})
    assert message in str(caught.value)
