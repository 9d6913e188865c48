"""The fragment on each page of a transform does what the page says, read by the core as a run reads it."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ftk.data.cache import Cache
from ftk.data.rows import Asked, RowReader
from ftk.parts import Objective
from ftk.plugin.discovery import load_registry
from ftk.recipe.building import build
from ftk.recipe.reading import recipe_from_table
from tests.core.test_docs import completed, fences

PAGES = Path(__file__).parents[3] / "docs" / "variants" / "transforms"
BUILTIN = load_registry(third_party=False)
PROSE = (
    "The first sentence of a page that stays. The second one comes after it. Then there is a third, with more words."
)
TEN = "one two three four five six seven eight nine ten"
Rows = list[dict[str, Any]]


def rows_of(*texts: str) -> Rows:
    return [{"text": text} for text in texts]


FILES: dict[str, dict[str, Rows]] = {
    "augment": {"reviews.jsonl": [{"text": "A fine film.", "label": 1}]},
    "clean": {"pages.jsonl": rows_of("<p>One&nbsp;&amp;  two</p>", "<br>")},
    "filter": {"web.jsonl": rows_of(PROSE, "Buy now!!!", f"{PROSE} {{x}}")},
    "map_columns": {"faq.jsonl": [{"id": 7, "question": "Why?", "answer": "So."}]},
    "template": {
        "cities.jsonl": [
            {"city": "Rome", "country": "Italy", "river": "Tiber"},
            {"city": "Oslo", "country": "Norway", "river": None},
        ]
    },
    "few_shot": {"reviews.jsonl": [{"text": str(n), "label": "good" if n % 2 else "bad"} for n in range(10)]},
    "select": {"digits.jsonl": [{"image": [[n, 0]], "label": n} for n in range(4)]},
    "permute_pixels": {"digits.jsonl": [{"image": [[0, 1, 2], [3, 4, 5]], "label": 1}]},
    "deduplicate": {"pages.jsonl": rows_of(TEN, TEN.upper(), f"{TEN} eleven", "other")},
    "split_long": {"books.jsonl": rows_of("one two three four five six seven", "short")},
    "decontaminate": {
        "web.jsonl": [{"instruction": f"They say {TEN}", "output": "yes"}, {"instruction": "Why?", "output": "so"}],
        "quiz.jsonl": [{"instruction": f"{TEN}?", "output": "no"}],
    },
}
"""For each page the files that its fragment names."""

GIVEN: dict[str, Callable[[Rows], bool]] = {
    "augment": lambda rows: (
        len(rows) == 4 and rows[1]["text"] == "A fine movie." and {row["label"] for row in rows} == {1}
    ),
    "clean": lambda rows: rows == rows_of("One & two"),
    "filter": lambda rows: rows == rows_of(PROSE),
    "map_columns": lambda rows: rows == [{"instruction": "Why?", "output": "So.", "source": "faq"}],
    "template": lambda rows: (
        [row["text"] for row in rows] == ["Rome lies in Italy. Its river is the Tiber.", "Oslo lies in Norway."]
    ),
    "few_shot": lambda rows: sorted(row["label"] for row in rows) == ["bad", "bad", "good", "good"],
    "select": lambda rows: [row["label"] for row in rows] == [0, 1],
    "permute_pixels": lambda rows: (
        sorted([*rows[0]["image"][0], *rows[0]["image"][1]]) == list(range(6)) and rows[0]["image"][0] != [0, 1, 2]
    ),
    "deduplicate": lambda rows: rows == rows_of(TEN, "other"),
    "split_long": lambda rows: rows == rows_of("one two three four", "four five six seven", "short"),
    "decontaminate": lambda rows: [row["instruction"] for row in rows] == ["Why?"],
}
"""For each page what the training rows then are."""


@pytest.mark.parametrize("name", [entry.variant.name for entry in BUILTIN.entries("transform")])
def test_the_fragment_on_its_page_does_what_the_page_says(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for file, rows in FILES[name].items():
        Path(file).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (text,) = [text for _, text in fences((PAGES / f"{name}.md").read_text(encoding="utf-8"), "toml")]
    recipe = recipe_from_table(completed(tomllib.loads(text)), "page", text, registry=BUILTIN)
    data, spec = recipe.stages[0].data, recipe.stages[0].objective
    (rows,) = RowReader(Cache(tmp_path / "cache")).tasks([Asked("page", build(spec, Objective), spec, data)])
    assert GIVEN[name](rows.roles["train"].rows.to_list())
