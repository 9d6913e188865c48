"""A stage of `token_classification`: capitals told in sentences never seen, by Transformers' own pipeline too."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from transformers import pipeline

import ftk
from tests.system.small import written

CAPITALS = ("Paris", "Oslo", "Buenos Aires", "Rome", "Lima", "New Delhi", "Cairo", "Seoul")
OTHERS = ("Anna", "Peter", "the old farm", "the coast", "winter", "Maria", "a green boat", "the market")
TAUGHT = (
    "we met in {} .", "{} is large", "they wrote about {} yesterday", "nobody left {} , I think", "I was in {} .",
    "nobody is large in {}", "yesterday {} was large , we think", "I met them , they left {} yesterday",
)  # fmt: skip
HELD_OUT = ("they met in {} yesterday", "I wrote about {} .", "nobody was in {} , we think")
RECIPE = """
name = "tag"
seed = 1
[model]
use = "scratch"
architecture = "bert"
hidden_size = 32
layers = 1
heads = 2
vocabulary_size = 400
[objective]
use = "token_classification"
class_weights = "balanced"
[adaptation]
use = "full"
[data]
train = { use = "files", path = "train.jsonl" }
test = { use = "files", path = "test.jsonl" }
[[evaluator]]
use = "accuracy"
[[evaluator]]
use = "f1"
[training]
steps = 100
batch_size = 16
learning_rate = 5e-3
precision = "fp32"
label_smoothing = 0.05
"""


def rows(templates: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Sentences about capitals and about others, each word tagged."""
    for template in templates:
        for name in (*CAPITALS, *OTHERS):
            before, after = (part.split() for part in template.split("{}"))
            words = name.split()
            tags = ["B-CAPITAL", *["I-CAPITAL"] * (len(words) - 1)] if name in CAPITALS else ["O"] * len(words)
            yield {"tokens": [*before, *words, *after], "tags": [*["O"] * len(before), *tags, *["O"] * len(after)]}


def test_capitals_are_told_in_new_sentences(tmp_path: Path) -> None:
    text = RECIPE
    for role, templates in (("train", TAUGHT), ("test", HELD_OUT)):
        path = tmp_path / f"{role}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows(templates)), encoding="utf-8")
        text = text.replace(path.name, str(path))
    result = ftk.run(written(tmp_path, text), output=tmp_path / "run")
    matrix, start = result.report["matrix"], result.report["start"]
    assert matrix["accuracy"][0][0] >= 0.97 > 0.6 > start["accuracy"][0]
    assert matrix["f1_macro"][0][0] >= 0.95
    counts = result.report["details"]["accuracy"][-1]["confusion"]
    assert sum(map(sum, counts)) == sum(len(row["tokens"]) for row in rows(HELD_OUT))
    tag = pipeline("token-classification", model=str(result.folder / "model"), aggregation_strategy="first")
    found = tag("they met in Buenos Aires yesterday")
    assert [(each["entity_group"], each["word"].strip()) for each in found if each["entity_group"] != "O"] == [
        ("CAPITAL", "Buenos Aires")
    ]
    assert "AutoModelForTokenClassification" in (result.folder / "model" / "README.md").read_text(encoding="utf-8")
