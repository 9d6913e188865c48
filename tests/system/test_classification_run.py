"""A stage of `classification`, from rows in a file to a model that Transformers' own pipeline answers with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import pipeline

import ftk
from ftk import UserError
from tests.system.small import written

WORDS = {"animal": ("cat", "dog", "cow", "hen"), "plant": ("oak", "rose", "fern", "moss")}
RECIPE = """
name = "sort"
seed = 1
[model]
use = "scratch"
architecture = "bert"
hidden_size = 32
layers = 1
heads = 2
vocabulary_size = 300
[objective]
use = "classification"
[adaptation]
use = "full"
[data]
overlap = "allow"
train = { use = "files", path = "rows.jsonl" }
test = { use = "files", path = "rows.jsonl" }
[[evaluator]]
use = "accuracy"
[[evaluator]]
use = "f1"
[training]
steps = 30
batch_size = 8
learning_rate = 5e-3
precision = "fp32"
"""


def rows(*pairs: tuple[str, Any]) -> str:
    return "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in pairs)


def sorting() -> str:
    return rows(*((f"a {word} here", label) for label, words in WORDS.items() for word in words))


def test_the_export_knows_its_labels_and_answers(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(sorting(), encoding="utf-8")
    recipe = written(tmp_path, RECIPE.replace("rows.jsonl", str(tmp_path / "rows.jsonl")))
    result = ftk.run(recipe, output=tmp_path / "run")
    classify = pipeline("text-classification", model=str(result.folder / "model"))
    for label, words in WORDS.items():
        for word in words:
            assert classify(f"a {word} here")[0]["label"] == label
    assert classify.model.config.id2label == {0: "animal", 1: "plant"}
    assert result.report["matrix"] == {"accuracy": [[1.0]], "f1_macro": [[1.0]]}
    start, end = result.report["details"]["accuracy"]
    assert (start["after"], end["after"]) == (0, 1)
    assert end == {
        "after": 1, "task": "sort", "interval": [1.0, 1.0],
        "labels": ["animal", "plant"], "confusion": [[4, 0], [0, 4]],
    }  # fmt: skip
    assert sum(start["confusion"][0]) == 4
    assert start["interval"][0] <= result.report["start"]["accuracy"][0] <= start["interval"][1]


@pytest.mark.parametrize(
    ("kind", "label", "expected"),
    [("multiple", ["a", "b"], lambda logits: logits.sigmoid()), ("regression", 2.5, lambda logits: logits)],
)
def test_whoever_reads_the_export_knows_what_its_outputs_are(
    kind: str, label: Any, expected: Callable[[Tensor], Tensor], tmp_path: Path
) -> None:
    (tmp_path / "rows.jsonl").write_text(rows(("one", label), ("two", label)), encoding="utf-8")
    recipe = RECIPE.replace("rows.jsonl", str(tmp_path / "rows.jsonl")).replace("steps = 30", "steps = 1")
    recipe = recipe.replace('use = "classification"', f'use = "classification"\nkind = "{kind}"')
    recipe = recipe[: recipe.index("[[evaluator]]")] + recipe[recipe.index("[training]") :]
    result = ftk.run(written(tmp_path, recipe), output=tmp_path / "run")
    answers = pipeline("text-classification", model=str(result.folder / "model"), top_k=None)
    with torch.no_grad():
        logits = answers.model(**answers.tokenizer("one", return_tensors="pt")).logits[0]
    told = {answer["label"]: answer["score"] for answer in answers(["one"])[0]}
    assert [told[name] for name in answers.model.config.id2label.values()] == pytest.approx(expected(logits).tolist())


def test_rows_that_do_not_tell_their_labels_are_named_before_a_model_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(rows(("a", "x"), ("b", "x")), encoding="utf-8")
    recipe = written(tmp_path, RECIPE.replace("rows.jsonl", str(tmp_path / "rows.jsonl")))
    events: list[str] = []
    with pytest.raises(UserError, match=r"data\.train: column `label` holds the label `x` alone"):
        ftk.run(recipe, output=tmp_path / "run", observers=[lambda event: events.append(str(event.data.get("text")))])
    assert "loading the model" not in events


def test_another_set_of_labels_is_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    recipe = written(tmp_path, RECIPE.replace("rows.jsonl", str(path)).replace("steps = 30", "steps = 1"))
    for number, label in enumerate(("plant", "aaa")):
        # The same texts and labels at first; the second time one label more comes before the others.
        path.write_text(sorting() + (rows(("a thing here", label)) if number else ""), encoding="utf-8")
        result = ftk.run(recipe, output=tmp_path / f"run{number}")
        config = json.loads((result.folder / "model" / "config.json").read_text(encoding="utf-8"))
        assert list(config["id2label"].values()) == ["aaa", "animal", "plant"][1 - number :]
