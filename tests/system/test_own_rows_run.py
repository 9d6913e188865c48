"""A run with an evaluator of its own rows: where its scores stand, and that they are the live model's."""

from __future__ import annotations

import json
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

import ftk
from ftk.planning.survey import Surveyor
from ftk.recipe.reading import load_recipe
from ftk.testing import toy_context, toy_task
from ftk_plugins.evaluators.multiple_choice.multiple_choice import MultipleChoice
from ftk_plugins.evaluators.multiple_choice.options import MultipleChoiceOptions
from tests.plugins.evaluators.talk import Talk
from tests.system.small import FACTS, HEAD, written

QUESTIONS = [
    {"question": f"Which is it, {number}?", "choices": ["Paris", "Rome", "Oslo"], "answer": number % 3}
    for number in range(9)
]


def test_it_is_measured_once_after_each_stage_in_the_first_task_that_has_it(tmp_path: Path) -> None:
    (tmp_path / "questions.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in QUESTIONS), encoding="utf-8")
    text = f"""{HEAD.replace("steps = 9", "steps = 4").replace("3e-3", "3e-2")}
evaluate_every = 4
[data]
overlap = "allow"
retain = {{ {FACTS}, relations = "iso_code", limit = 3 }}
retain_test = {{ {FACTS}, relations = "iso_code", limit = 2 }}
test = {{ {FACTS}, relations = "capital", limit = 2 }}
validation = {{ {FACTS}, relations = "capital", limit = 2 }}
[data.probes]
again = {{ {FACTS}, relations = "capital", limit = 2 }}
[[evaluator]]
use = "multiple_choice"
name = "quiz"
data = {{ use = "files", path = "{tmp_path}/questions.jsonl" }}
while_training = true
[[evaluator]]
use = "perplexity"
[[stage]]
name = "one"
adaptation = {{ use = "lora", rank = 4 }}
data = {{ train = {{ {FACTS}, relations = "capital", limit = 6 }} }}
[[stage]]
name = "two"
adaptation = {{ use = "full" }}
data = {{ train = {{ {FACTS}, relations = "currency", limit = 6 }} }}
"""
    result = ftk.run(written(tmp_path, text), output=tmp_path / "run")
    report = json.loads((result.folder / "report.json").read_text(encoding="utf-8"))
    names = ["quiz.choice_accuracy", "quiz.choice_accuracy_norm", "perplexity", "perplexity@again"]
    assert sorted(report["matrix"]) == sorted(names)
    for name in names[:2]:
        table = report["matrix"][name]
        assert [[value is not None for value in row] for row in table] == [[True, False, False]] * 3
        assert report["start"][name][0] == table[0][0]
        assert {detail["task"] for detail in report["details"][name]} == {"retain"}
    for stage in report["stages"]:
        for entry in stage["history"]:
            assert set(entry["scores"]["retain"]) == set(names[:2]), "retain has no validation rows of its own"
            assert set(entry["scores"][stage["name"]]) == {"perplexity"}

    left = AutoModelForCausalLM.from_pretrained(result.folder / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(result.folder / "model")
    task = toy_task(QUESTIONS, Talk(), processor=tokenizer)
    ctx = toy_context(left, task.objective, processor=tokenizer)
    for metric in MultipleChoice(MultipleChoiceOptions()).measure(left, task, ctx):
        assert report["matrix"][f"quiz.{metric.name}"][-1][0] == metric.value


def test_training_rows_that_hold_its_questions_are_dropped_by_decontaminate(tmp_path: Path) -> None:
    asked = "which of the nine old harbours lies farthest to the north of all"
    row = {"question": asked, "choices": ["Vardo", "Bergen"], "answer": 0}
    (tmp_path / "questions.jsonl").write_text(json.dumps(row), encoding="utf-8")
    taught = [{"instruction": text, "output": "it is so"} for text in ("what is a harbour", f"tell me {asked}", "why")]
    (tmp_path / "train.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in taught), encoding="utf-8")
    text = f"""{HEAD}
[adaptation]
use = "full"
[data.train]
use = "files"
path = "{tmp_path}/train.jsonl"
transform = [{{ use = "decontaminate" }}]
[[evaluator]]
use = "multiple_choice"
data = {{ use = "files", path = "{tmp_path}/questions.jsonl" }}
"""
    told = Surveyor(load_recipe(written(tmp_path, text))).task("small", 0)["roles"]["train"]
    assert (told["read"], told["rows"]) == (3, 2)
    (effect,) = told["steps"][0]["effects"]
    assert "evaluator.multiple_choice.data" in effect["reason"]
