"""The harness's tasks: as the harness itself scores them, offline, and without a trace in the process."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from pydantic import ValidationError

import ftk
from ftk import UserError
from ftk.parts import Metric
from ftk.testing import toy_context, toy_task
from ftk_plugins.evaluators.lm_eval import options as module
from ftk_plugins.evaluators.lm_eval.options import LmEvalOptions
from ftk_plugins.evaluators.multiple_choice.likelihood import encode_pairs, log_likelihoods
from tests.plugins.evaluators.talk import Talk
from tests.plugins.evaluators.test_multiple_choice import ROWS, measure, model, tokenizer
from tests.system.small import FACTS, HEAD, written

harness = pytest.mark.skipif(find_spec("lm_eval") is None, reason='needs pip install "finetune-toolkit[lm-eval]"')


def test_without_the_package_it_is_refused_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(ValidationError) as failure:
        LmEvalOptions(tasks=["hellaswag"])
    assert 'needs the package lm_eval: pip install "finetune-toolkit[lm-eval]"' in str(failure.value)


QUIZ = """
task: {name}
dataset_path: json
dataset_kwargs:
  data_files: {{test: {rows}, train: {rows}}}
test_split: test
fewshot_split: train
output_type: multiple_choice
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
doc_to_choice: choices
doc_to_target: answer
metric_list: [{{metric: acc}}, {{metric: acc_norm}}, {{metric: brier_score}}]
metadata: {{version: 2.0}}
"""
OTHERS = """
task: nats
dataset_path: json
dataset_kwargs:
  data_files: {{test: {rows}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: question
metric_list: [{{metric: word_perplexity}}]
---
task: written
dataset_path: json
dataset_kwargs:
  data_files: {{test: {rows}}}
test_split: test
output_type: generate_until
doc_to_text: question
doc_to_target: "{{{{choices[answer]}}}}"
generation_kwargs: {{max_gen_toks: 3, until: ["\\n"]}}
num_fewshot: 0
metric_list: [{{metric: exact_match}}]
filter_list:
  - {{name: bare, filter: [{{function: take_first}}]}}
---
group: both
task: [quiz, more]
aggregate_metric_list: [{{metric: acc, weight_by_size: true}}]
---
task: adrift
dataset_path: json
dataset_kwargs:
  data_files: {{test: {rows}-gone}}
test_split: test
output_type: loglikelihood
doc_to_text: question
doc_to_target: answer
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tasks over the rows of the tests of `multiple_choice`."""
    here = tmp_path_factory.mktemp("tasks")
    rows = here / "rows.jsonl"
    rows.write_text("".join(f"{json.dumps(row)}\n" for row in ROWS), encoding="utf-8")
    few = here / "few.jsonl"
    few.write_text("".join(f"{json.dumps(row)}\n" for row in ROWS[:5]), encoding="utf-8")
    tasks = [QUIZ.format(name="quiz", rows=rows), QUIZ.format(name="more", rows=few)]
    for number, text in enumerate([*tasks, *OTHERS.format(rows=rows).split("---\n")]):
        (here / f"{number}.yaml").write_text(text, encoding="utf-8")
    return here


@pytest.fixture
def score(folder: Path) -> Callable[..., dict[str, Metric]]:
    """Measure some tasks, by a model of one's own or the wide toy."""

    def measured(*tasks: str, its: Any = None, processor: Any = None, **options: Any) -> dict[str, Metric]:
        from ftk_plugins.evaluators.lm_eval.lm_eval import LmEval

        its, processor = its or model(), processor or tokenizer()
        part = LmEval(LmEvalOptions(tasks=tasks, folder=str(folder), **options))
        ctx = toy_context(its, Talk(), processor=processor)
        return {metric.name: metric for metric in part.measure(its, toy_task(ROWS, Talk()), ctx)}

    return measured


@harness
def test_it_scores_what_the_harness_scores(score: Any, folder: Path) -> None:
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    plain = HFLM(pretrained=model(), tokenizer=tokenizer(), batch_size=3)
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    for shots in (None, 2):
        names = ["quiz", "nats"] if shots else ["quiz", "nats", "written"]
        theirs = lm_eval.simple_evaluate(plain, tasks=names, task_manager=manager, num_fewshot=shots, log_samples=False)
        ours = score(*names, shots=shots)
        told = {name: metric.value for name, metric in ours.items()}
        results = theirs["results"]
        expected = {"quiz/acc": results["quiz"]["acc,none"], "quiz/acc_norm": results["quiz"]["acc_norm,none"]}
        expected["quiz/brier_score"] = results["quiz"]["brier_score,none"]
        expected["nats/word_perplexity"] = results["nats"]["word_perplexity,none"]
        if not shots:
            expected["written/exact_match/bare"] = results["written"]["exact_match,bare"]
        assert told == pytest.approx(expected, rel=1e-5)
        assert ours["quiz/acc"].higher_is_better
        assert not ours["nats/word_perplexity"].higher_is_better
        assert ours["quiz/acc"].detail == {
            "stderr": pytest.approx(results["quiz"]["acc_stderr,none"]),
            "rows": 10,
            "shots": shots or 0,
            "version": 2.0,
        }
        assert score(*names, shots=shots) == ours, "the same examples are drawn again"


@harness
def test_multiple_choice_scores_what_the_harness_scores(score: Any) -> None:
    """Which checks both: the one by another library, the other by choices scored one by one."""
    from lm_eval.api.instance import Instance

    from ftk_plugins.evaluators.lm_eval.harness import LiveModel

    theirs, ours = score("quiz"), measure()
    assert theirs["quiz/acc"].value == ours["choice_accuracy"].value
    assert theirs["quiz/acc_norm"].value == ours["choice_accuracy_norm"].value
    texts = [
        ("Question: who?\nAnswer:", " blue"),
        ("Say: ", "gone far"),
        ("x ", " y"),
        ("長い", "水 indeed"),
        ("", "ab"),
    ]
    texts.append(("the old mill is far away " * 60, " gone"))  # more than the model's positions
    live = LiveModel(model(), tokenizer(), 2, None, lambda: None)
    asked = [
        Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=number) for number, pair in enumerate(texts)
    ]
    found = log_likelihoods(encode_pairs(texts, tokenizer()), model(), toy_context(model(), Talk()), 4)
    assert found == pytest.approx([value for value, _ in live.loglikelihood(asked)], rel=1e-4)


@harness
def test_a_group_is_what_the_harness_makes_of_its_tasks(score: Any) -> None:
    found = score("both")
    parts = score("quiz", "more")
    assert set(found) == {"both/acc"}
    one, other = parts["quiz/acc"].value, parts["more/acc"].value
    assert found["both/acc"].value == pytest.approx((10 * one + 5 * other) / 15)
    assert found["both/acc"].detail["tasks"] == {"quiz": one, "more": other}


@harness
def test_limit_and_chat_template_change_what_is_asked(score: Any) -> None:
    assert score("quiz", limit=4)["quiz/acc"].detail["rows"] == 4
    chatty = deepcopy(tokenizer())
    chatty.chat_template = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }} indeed{% endfor %}"
    plain, asked = score("quiz"), score("quiz", chat_template=True, processor=chatty)
    assert abs(asked["quiz/brier_score"].value - plain["quiz/brier_score"].value) > 1e-3
    with pytest.raises(UserError, match="has no chat template"):
        score("quiz", chat_template=True)


@harness
def test_the_adapters_are_on(score: Any) -> None:
    adapted = get_peft_model(model().__class__(model().config), LoraConfig(target_modules=["q_proj", "v_proj"]))
    adapted.eval()
    before = score("nats", its=adapted)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.normal_(generator=torch.Generator().manual_seed(0))
    after = score("nats", its=adapted)
    with adapted.disable_adapter():
        assert score("nats", its=adapted) == before != after


@harness
def test_it_leaves_no_trace(score: Any, capsys: pytest.CaptureFixture[str]) -> None:
    its = model()
    padless = tokenizer().__class__(tokenizer_object=tokenizer().backend_tokenizer, eos_token="<|end|>")
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    before = dict(os.environ), dict(vars(its)), [each.training for each in its.modules()]
    output = its.lm_head.weight
    score("quiz", "nats", shots=1, its=its, processor=padless)
    assert states == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    assert before == (dict(os.environ), dict(vars(its)), [each.training for each in its.modules()])
    assert its.lm_head.weight is output
    assert padless.pad_token is None
    assert capsys.readouterr().out == ""


@harness
def test_what_cannot_be_asked_is_refused_when_the_evaluator_is_made(
    score: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ftk_plugins.evaluators.lm_eval import lm_eval as its

    manager = its.task_manager
    monkeypatch.setattr(its, "task_manager", lambda folder, builtin: manager(folder, False))  # thousands take seconds
    for tasks, options, told in (
        (["quizz"], {}, "the harness has no task `quizz`, neither in"),
        (["adrift"], {}, "task `adrift` cannot be loaded"),
        (["written"], {"shots": 1}, "task `written` is asked without examples"),
    ):
        with pytest.raises(UserError, match=told) as failure:
            score(*tasks, **options)
        assert failure.value.hint
        assert told != tasks[0] or "`quiz`" in failure.value.hint
    with pytest.raises(UserError, match="there is no folder `/nowhere`"):
        its.LmEval(LmEvalOptions(tasks=["quiz"], folder="/nowhere"))
    with pytest.raises(ValidationError, match="names one of them twice"):
        LmEvalOptions(tasks=["quiz", "quiz"])


@harness
def test_a_run_keeps_it_as_what_must_not_be_lost_and_chooses_by_it(folder: Path, tmp_path: Path) -> None:
    text = f"""{HEAD.replace("steps = 9", "steps = 4")}
evaluate_every = 2
keep = "best"
best_by = "quiz/acc_norm"
[adaptation]
use = "lora"
rank = 4
[data]
overlap = "allow"
train = {{ {FACTS}, relations = "capital", limit = 6 }}
[[evaluator]]
use = "lm_eval"
tasks = ["quiz"]
folder = "{folder}"
while_training = true
"""
    result = ftk.run(written(tmp_path, text), output=tmp_path / "run")
    report = json.loads((result.folder / "report.json").read_text(encoding="utf-8"))
    assert set(report["matrix"]) == {"quiz/acc", "quiz/acc_norm", "quiz/brier_score"}
    (stage,) = report["stages"]
    assert [entry["criterion"] for entry in stage["history"]] == [
        entry["scores"]["small"]["quiz/acc_norm"] for entry in stage["history"]
    ]
    assert report["details"]["quiz/acc"][-1]["rows"] == 10
    with pytest.raises(UserError, match="no evaluator measures `quiz/accc`"):
        ftk.run(written(tmp_path, text), output=tmp_path / "other", overrides=['training.best_by="quiz/accc"'])
