"""Answers of some rows: the same rows each time, answers that are shared, and how they are shown."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ftk import RecipeError, UserError
from ftk.parts import Task
from ftk.plugin.discovery import load_registry
from ftk.recipe.reading import recipe_from_table
from ftk.report.samples import sample_lines
from ftk.report.scores import Scores
from ftk.report.terminal import plain_text
from ftk.running.measuring import measure_tasks
from ftk.testing import toy_context, toy_examples, toy_task, toy_tokenizer
from ftk_plugins.evaluators.exact_match.exact_match import ExactMatch
from ftk_plugins.evaluators.exact_match.options import ExactMatchOptions
from ftk_plugins.evaluators.samples.options import SamplesOptions
from ftk_plugins.evaluators.samples.samples import Samples
from tests.plugins.evaluators.talk import ROWS, Talk, greedy


def told(model: Any, task: Task | None = None, **options: Any) -> list[dict[str, Any]]:
    ctx = toy_context(model, Talk(), shared={})
    with torch.no_grad():
        evaluator = Samples(SamplesOptions(**options))
        assert evaluator.measure(model, task or toy_task(ROWS, Talk()), ctx) == []
        (note,) = evaluator.notes(model, task or toy_task(ROWS, Talk()), ctx)
    assert note.name == "samples"
    answers: list[dict[str, Any]] = note.detail["answers"]
    return answers


def test_each_row_has_its_prompt_the_right_answer_and_the_model_s(learned: Any) -> None:
    found = told(learned, rows=3, max_new_tokens=16)
    assert [row["row"] for row in found] == sorted({row["row"] for row in found})
    assert len(found) == 3
    for row in found:
        source = ROWS[row["row"] - 1]
        assert (row["prompt"], row["expected"]) == (source["instruction"], source["output"])
        ids = greedy(learned, toy_tokenizer()(source["instruction"])["input_ids"], 16)
        assert row["answer"] == toy_tokenizer().decode(ids) == source["output"]


def test_the_seed_chooses_the_rows_and_few_rows_are_all_there_are(learned: Any) -> None:
    chosen = {seed: [row["row"] for row in told(learned, rows=2, seed=seed, max_new_tokens=1)] for seed in (0, 0, 1, 2)}
    assert chosen[0] == [row["row"] for row in told(learned, rows=2, max_new_tokens=1)]
    assert len({tuple(rows) for rows in chosen.values()}) > 1
    assert [row["row"] for row in told(learned, rows=50, max_new_tokens=1)] == [1, 2, 3, 4, 5]
    assert all(len(row["answer"]) <= 1 for row in told(learned, max_new_tokens=1))


def measured(model: Any, *evaluators: Any) -> tuple[Scores, int]:
    """What is recorded of a task, and how many passes the model made."""
    passes: list[int] = []
    hook = model.register_forward_pre_hook(lambda *_: passes.append(1))
    objective = Talk()
    task = toy_task(ROWS, objective, "toy", evaluators)
    scores = Scores(["toy"])
    measure_tasks(toy_context(model, objective, stage=0), [task], scores)
    hook.remove()
    return scores, len(passes)


def test_answers_of_another_evaluator_are_used_and_nothing_is_generated_twice(learned: Any) -> None:
    exact = ExactMatch(ExactMatchOptions(max_new_tokens=8))
    _, alone = measured(learned, exact)
    for batch_size in (64, 2):
        scores, both = measured(learned, Samples(SamplesOptions(max_new_tokens=8, batch_size=batch_size)), exact)
        assert both == alone
        assert scores.details("samples")[0]["answers"] == told(learned, max_new_tokens=8)
    _, other = measured(learned, Samples(SamplesOptions(max_new_tokens=7)), exact)
    assert other > alone


def test_it_is_in_the_report_without_a_number_and_is_read_back(learned: Any) -> None:
    scores, _ = measured(learned, Samples(SamplesOptions(max_new_tokens=4)))
    report = scores.to_json()
    assert report["matrix"] == report["higher_is_better"] == {}
    (entry,) = report["details"]["samples"]
    assert (entry["after"], entry["task"], len(entry["answers"])) == (0, "toy", 5)
    assert Scores.from_json(report).to_json() == report


def test_it_is_shown_before_and_after_and_hostile_text_stays_text() -> None:
    def entry(after: int, answer: str) -> dict[str, Any]:
        rows = [{"row": 3, "prompt": "[bold]Who\n\x1b[31m?", "expected": "[/]", "answer": answer}]
        return {"after": after, "task": "one", "answers": rows}

    report = {
        "tasks": ["one", "two"], "matrix": {}, "higher_is_better": {}, "start": {}, "stages": [
            {"name": "one"}, {"name": "two"}, {"name": "three"},
        ],
        "details": {
            "samples": [entry(0, "[red]before"), entry(1, "learned"), entry(2, "between"), entry(3, "x" * 999)],
        },
    }  # fmt: skip
    shown = plain_text(report, width=300)
    assert "samples of one" in shown
    for line in ("row 3: [bold]Who⏎", "expected     [/]", "start        [red]before", "after one    learned"):
        assert line in shown
    assert "between" not in shown
    assert f"after three  {'x' * 199}…" in shown
    assert "\x1b" not in shown
    assert len(sample_lines({**report, "details": {}})) == 0


def test_a_row_that_gives_no_prompt_is_named_by_its_own_number(learned: Any) -> None:
    rows = [*ROWS[:4], {**ROWS[4], "instruction": ""}]
    with pytest.raises(UserError, match="toy, row 5: the text in column `instruction` is empty"):
        told(learned, Task("toy", Talk(), toy_examples(rows, Talk()), test=toy_examples(rows, Talk())))


def test_an_objective_without_prompts_is_refused() -> None:
    data = {"use": "world_facts", "relations": ["capital"]}
    table = {
        "name": "no", "model": {"use": "scratch"}, "objective": {"use": "masked_lm"}, "adaptation": {"use": "full"},
        "evaluator": [{"use": "samples"}], "data": {"train": data, "test": data},
    }  # fmt: skip
    with pytest.raises(RecipeError, match="`samples` needs prompts, which objective `masked_lm` does not provide"):
        recipe_from_table(table, "test", "", registry=load_registry(third_party=False))
