"""One head whose classes come with the stages, and a head for each task, through whole runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import ftk
from tests.system.small import written
from tests.words import write_words

RECIPE = """
name = "words"
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
OBJECTIVE
[adaptation]
use = "full"
[sequence]
name = "task{number}"
values = [["river", "hill"], ["tree"], ["star"]]
[data]
overlap = "allow"
train = { use = "files", path = "{value}" }
test = { use = "files", path = "{value}" }
[[mitigation]]
use = "ewc"
samples = 8
[[mitigation]]
use = "replay"
share = 0.3
[[evaluator]]
use = "accuracy"
[training]
steps = 25
batch_size = 8
learning_rate = 1e-2
precision = "fp32"
"""
INCREMENTAL = 'incremental = true\nlabels = ["river", "hill", "tree", "star"]'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of each class in a file."""
    folder = tmp_path_factory.mktemp("words")
    write_words(folder, 8)
    return folder


def run(folder: Path, name: str, objective: str, *overrides: str) -> ftk.RunResult:
    groups = [[str(folder / f"{label}.jsonl") for label in group] for group in (["river", "hill"], ["tree"], ["star"])]
    text = RECIPE.replace("OBJECTIVE", objective)
    return ftk.run(written(folder, text), output=folder / name, overrides=[f"sequence.values={groups}", *overrides])


@pytest.fixture(scope="module")
def grown(folder: Path) -> ftk.RunResult:
    return run(folder, "grown", INCREMENTAL)


def head_after(result: ftk.RunResult, stage: int) -> tuple[torch.Tensor, torch.Tensor]:
    weights = load_file(result.folder / "stages" / f"{stage}-task{stage}" / "model" / "model.safetensors")
    return weights["classifier.weight"], weights["classifier.bias"]


def test_a_class_is_predicted_from_the_stage_on_that_teaches_it(grown: ftk.RunResult) -> None:
    rows = grown.report["matrix"]["accuracy"]
    assert (rows[0][1], rows[0][2], rows[1][2]) == (0.0, 0.0, 0.0)
    assert [rows[task][task] for task in range(3)] == [1.0, 1.0, 1.0]
    assert rows[2][0] >= 0.5, "replay keeps most of the first task among all four classes"


def test_adding_classes_leaves_the_rows_of_others_as_they_are(grown: ftk.RunResult) -> None:
    """Until its stage a class's row is what was drawn, to the bit; from then on it is learned."""
    (first, _), (second, bias), (third, _) = (head_after(grown, stage) for stage in (1, 2, 3))
    assert torch.equal(first[3], second[3])
    assert not torch.equal(second[3], third[3])
    assert not torch.equal(first[2], second[2])
    assert bias[3] == 0
    assert [len(weight) for weight in (first, second, third)] == [4, 4, 4]


def test_the_card_of_a_stages_model_names_the_classes_that_have_not_come(grown: ftk.RunResult) -> None:
    cards = [
        (grown.folder / "stages" / f"{n}-task{n}" / "model" / "README.md").read_text(encoding="utf-8")
        for n in (1, 2, 3)
    ]
    said = "Outputs for labels that no stage has taught yet, and that mean nothing: "
    assert f"{said}tree, star." in cards[0]
    assert f"{said}star." in cards[1]
    assert said not in cards[2]


def test_a_class_that_has_not_come_has_no_importance(grown: ftk.RunResult) -> None:
    state = load_file(grown.folder / "stages" / "2-task2" / "state" / "mitigation.ewc.safetensors")
    (importance,) = [value for name, value in state.items() if name.endswith("classifier.weight")]
    # Stage 2 remembers the first task alone, whose classes are the first two.
    assert torch.equal(importance[2:], torch.zeros_like(importance[2:]))
    assert (importance[:2] > 0).any()


def test_a_run_that_goes_on_learns_a_class_that_was_declared(folder: Path) -> None:
    groups = [[str(folder / f"{label}.jsonl") for label in group] for group in (["river", "hill"], ["tree"])]
    run(folder, "longer", INCREMENTAL, f"sequence.values={groups}")
    rows = run(folder, "longer", INCREMENTAL).report["matrix"]["accuracy"]
    assert (rows[1][2], rows[2][2]) == (0.0, 1.0)


def test_tasks_with_other_labels_have_heads_of_their_own(folder: Path) -> None:
    """Task-incremental: each task is measured through the head that learned it, and has no other's labels."""
    groups = [[str(folder / f"{label}.jsonl") for label in group] for group in (["river", "hill"], ["tree", "star"])]
    report: dict[str, Any] = run(folder, "heads", "", f"sequence.values={groups}").report
    rows = report["matrix"]["accuracy"]
    assert (rows[0][0], rows[1][1]) == (1.0, 1.0)
    assert 0 < rows[0][1] < 1, "a head that is newly drawn, at chance"
    assert rows[1][0] >= 0.9
