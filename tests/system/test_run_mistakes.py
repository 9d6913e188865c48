"""Mistakes that only a run can find: each is told in one message, exit code 2, and is mended without a trace."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ftk.cli import cli
from tests.system.small import HEAD, report_of, written

RECIPE = f"""{HEAD}
[adaptation]
use = "lora"
rank = 2
[[evaluator]]
use = "keyword_accuracy"
max_new_tokens = 2
[data]
retain = {{ use = "files", path = "old.jsonl" }}
retain_test = {{ use = "files", path = "old-test.jsonl" }}
train = {{ use = "files", path = "train.jsonl" }}
test = {{ use = "files", path = "test.jsonl" }}
"""

TWO_STAGES = f"""{HEAD}
[adaptation]
use = "full"
[[stage]]
name = "first"
data.train = {{ use = "files", path = "train.jsonl" }}
[[stage]]
name = "second"
data.train = {{ use = "files", path = "old.jsonl" }}
"""

Rows = list[dict[str, Any]]


def rows(first: int, count: int = 4) -> Rows:
    facts = range(first, first + count)
    return [{"instruction": f"{n} and {n}?", "output": f"{n + n}", "keywords": str(n + n)} for n in facts]


def changed(row: int, **columns: Any) -> Rows:
    """Training rows with one of them, counted from 1, changed."""
    there = rows(0)
    there[row - 1] = {key: value for key, value in {**there[row - 1], **columns}.items() if value is not None}
    return there


@dataclass(frozen=True)
class Mistake:
    """One mistake.

    Attributes:
        said: what the message holds.
        settings: the change to the recipe that makes the mistake.
        files: or the data files that make it, by name: rows, or the text itself.
        recipe: what is run.
    """

    said: Sequence[str]
    settings: Sequence[str] = ()
    files: dict[str, Rows | str | bytes] = field(default_factory=dict)
    recipe: str = RECIPE


MISTAKES = {
    # files
    "no such data file": Mistake(
        ["data.train: there is no file trian.jsonl", "did you mean `train.jsonl`?"], ["data.train.path=trian.jsonl"]
    ),
    "data file that is a folder": Mistake(["data.test: . is a folder"], ["data.test.path=."]),
    "empty data file": Mistake(["data.train: train.jsonl is empty"], files={"train.jsonl": ""}),
    "line that is no JSON": Mistake(
        ["data.train: train.jsonl, line 2: no valid JSON"], files={"train.jsonl": '{"instruction": "a"}\nb\n'}
    ),
    "file in another encoding": Mistake(
        ["data.train: train.jsonl is not utf-8 text", "`encoding`"],
        files={"train.jsonl": '{"instruction": "é", "output": "è"}'.encode("latin-1")},
    ),
    "column that is not there": Mistake(
        ["data.train: train.jsonl has no column `answer`"], ["data.train.columns={ output = 'answer' }"]
    ),
    "too few rows to divide": Mistake(
        ["data.train: train.jsonl has 1 row", "too few to be divided"],
        ["data.train.test_fraction=0.5"],
        {"train.jsonl": rows(0, 1)},
    ),
    # rows
    "row without an answer": Mistake(
        ["data.train, row 3: there is no answer in column `output`"], files={"train.jsonl": changed(3, output=None)}
    ),
    "row with an empty answer": Mistake(
        ["data.train, row 2: the answer in column `output` is empty"], files={"train.jsonl": changed(2, output=" ")}
    ),
    "rows without the needed columns": Mistake(
        ["data.train, row 1: there is no text in column `instruction`", "the row has `question`, `answer`"],
        files={"train.jsonl": [{"question": "a?", "answer": "b"}]},
    ),
    "row that is too long": Mistake(
        ["data.train, row 4: the row has", "`max_length` is 12"],
        ["objective.max_length=12"],
        {"train.jsonl": changed(4, output="many words of no use " * 9)},
    ),
    "retained row with an empty answer": Mistake(
        ["data.retain, row 1: the answer in column `output` is empty"],
        files={"old.jsonl": [{"instruction": "a?", "output": ""}]},
    ),
    "bad row in the second stage": Mistake(
        ["stage.second.data.train, row 1: the answer in column `output` is empty"],
        files={"old.jsonl": [{"instruction": "a?", "output": ""}]},
        recipe=TWO_STAGES,
    ),
    "bad validation row": Mistake(
        ["data.validation, row 2: the answer in column `output` is empty"],
        ["data.validation={ use = 'files', path = 'validation.jsonl' }"],
        {"validation.jsonl": changed(2, output="")},
    ),
    "test row without keywords": Mistake(
        ["data.test, row 4: column `keywords` holds no keywords, but None"],
        files={"test.jsonl": [*rows(20, 3), {"instruction": "a?", "output": "b", "keywords": None}]},
    ),
    "no rows are left": Mistake(
        ["data.train.transform.1: `nothing` leaves none of 4 rows", "look at its options"],
        ["data.train.transform=[{ use = 'nothing' }]"],
    ),
    "rows in both training and test": Mistake(
        ["data.test: 2 of 3 rows stand in the training data of `small` too", 'overlap = "warn"'],
        ["data.overlap=error"],
        {"test.jsonl": [*rows(2, 2), *rows(90, 1)]},
    ),
    # what belongs together
    "evaluators without test data": Mistake(
        ["evaluator.keyword_accuracy: `keyword_accuracy`: there are no test rows to measure on", "add data.test"],
        recipe=RECIPE.replace('test = { use = "files", path = "test.jsonl" }', ""),
    ),
    "evaluators without retained test data": Mistake(
        ["`keyword_accuracy`: there are no test rows of data.retain to measure on", "add data.retain_test"],
        recipe=RECIPE.replace('retain_test = { use = "files", path = "old-test.jsonl" }', ""),
    ),
    "shares that leave no room": Mistake(
        ["mitigation.replay: the rows that mitigations mix in fill 1.2 of the training data"],
        ["mitigation=[{ use = 'replay', share = 0.6 }, { use = 'replay', name = 'more', share = 0.6 }]"],
    ),
    # the model and the device
    "model folder that is not there": Mistake(
        ["model.path: no folder ./nowhere"], ["model={ use = 'pretrained', path = './nowhere' }"]
    ),
    "model folder without a model": Mistake(
        ["model.path: . has no config.json"], ["model={ use = 'pretrained', path = '.' }"]
    ),
    "GGUF file that is not there": Mistake(
        ["model.gguf_file: no file tiny.gguf"], ["model={ use = 'pretrained', path = '.', gguf_file = 'tiny.gguf' }"]
    ),
    "LoRA targets that match nothing": Mistake(
        ["adaptation.targets: 'q_porj' matches no linear layer", "did you mean `q_proj`?"],
        ["adaptation.targets=['q_porj']"],
    ),
    "LoRA targets that match nothing in the second stage": Mistake(
        ["stage `second`: adaptation.targets: 'q_porj' matches no linear layer", "did you mean `q_proj`?"],
        ["stage.second.adaptation={ use = 'lora', targets = ['q_porj'] }"],
        recipe=TWO_STAGES,
    ),
    "half precision on a CPU": Mistake(['training.precision = "fp16" needs a GPU'], ["training.precision=fp16"]),
    "half precision in the second stage": Mistake(
        ['training.precision = "fp16" needs a GPU'],
        ["stage.second.training.precision=fp16"],
        recipe=TWO_STAGES,
    ),
    # the command
    "output that is a file": Mistake(
        ["train.jsonl: is a file, not a run's folder", "--output"], ["--output", "train.jsonl"]
    ),
    "output that holds other files": Mistake(
        ["holds files, but no run of ftk", "choose an empty or a new folder"], ["--output", "."]
    ),
}

PLUGIN = """
from ftk import Options, Variant, hookimpl
from ftk.parts import Transform

class Nothing(Transform):
    def __init__(self, options):
        pass
    def apply(self, dataset):
        return dataset.select([])

@hookimpl
def ftk_transforms():
    build = "ftk_nothing:Nothing"
    return [Variant(name="nothing", summary="Drops every row.", options="ftk_nothing:Options", build=build)]
"""

Ftk = Callable[..., Result]


@pytest.fixture
def ftk(here: Path, add_plugin: Callable[[str, str], None]) -> Ftk:
    """``ftk("run", …)`` beside good data, with a transform ``nothing``."""
    add_plugin("ftk-nothing", PLUGIN)
    write({"train.jsonl": rows(0), "test.jsonl": rows(20), "old.jsonl": rows(40), "old-test.jsonl": rows(60)})
    return lambda *arguments: CliRunner().invoke(cli, [*map(str, arguments)])


def write(files: dict[str, Rows | str | bytes]) -> None:
    for name, content in files.items():
        if isinstance(content, list):
            content = "".join(json.dumps(row) + "\n" for row in content)
        Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_told_and_can_be_mended(mistake: Mistake, ftk: Ftk) -> None:
    good = {name: Path(name).read_bytes() for name in ("train.jsonl", "test.jsonl", "old.jsonl")}
    write(mistake.files)
    written(Path.cwd(), mistake.recipe)
    options = mistake.settings if "--output" in mistake.settings else [f"--set={text}" for text in mistake.settings]

    result = ftk("run", "recipe.toml", *options)

    assert result.exit_code == 2, result.output
    assert result.stderr.count("error:") == 1
    assert all(text in result.stderr for text in mistake.said), result.stderr
    assert "Traceback" not in result.output
    assert not Path("runs/small/checkpoints").exists(), "it is told before anything has trained"

    write(good)
    written(Path.cwd(), RECIPE)
    result = ftk("run", "recipe.toml", "--set=evaluator=[]", "--set=training.steps=1")
    assert result.exit_code == 0, result.output
    assert report_of(Path("runs/small"))["stages"][0]["steps"] == 1
