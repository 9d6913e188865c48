"""Classes that a longer recipe adds to a finished run: its head grows, and ends as one that had them from the start."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

import ftk
from ftk.errors import Interrupted, UserError
from ftk.events import RunEvent
from ftk.parts import Head
from ftk.recipe.growing import as_before, difference
from ftk.recipe.reading import load_recipe
from ftk.running.runner import run as run_recipe
from ftk_plugins.models.pretrained.options import PretrainedOptions
from ftk_plugins.models.pretrained.pretrained import Pretrained
from ftk_plugins.models.scratch.options import ScratchOptions
from ftk_plugins.models.scratch.scratch import Scratch
from tests.system.small import weights, written
from tests.words import WORDS, write_words

FOUR = list(WORDS)
STEPS = 4
RECIPE = f"""
name = "grown"
seed = 1
[model]
use = "pretrained"
path = "START"
[objective]
use = "classification"
incremental = true
labels = LABELS
[adaptation]
use = "lora"
rank = 2
modules_to_save = ["classifier"]
[sequence]
name = "task{{number}}"
values = VALUES
[data]
overlap = "allow"
train = {{ use = "files", path = "{{value}}" }}
test = {{ use = "files", path = "{{value}}" }}
[[mitigation]]
use = "ewc"
samples = 4
normalise = false
anchors = "separate"
[[mitigation]]
use = "synaptic_intelligence"
normalise = false
[[mitigation]]
use = "mas"
samples = 4
normalise = false
[[mitigation]]
use = "l2sp"
anchor = "run"
[[mitigation]]
use = "distill"
[[mitigation]]
use = "replay"
share = 0.2
[[mitigation]]
use = "der"
share = 0.2
weight = 1e-30
[[evaluator]]
use = "accuracy"
[training]
steps = {STEPS}
batch_size = 8
log_every = 1
learning_rate = 1e-2
precision = "fp32"
"""
"""Nothing is scaled by how many weights there are, nor are logits of classes that have not come held in place, for a
head that had them from the start has more."""


def head(labels: list[str]) -> Head:
    return Head("sequence_classification", tuple(labels), "single_label_classification")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of each class in a file; a start with three classes, and the same with the fourth as growth will draw it."""
    folder = tmp_path_factory.mktemp("grown")
    write_words(folder, 6)
    size = {"architecture": "bert", "hidden_size": 32, "layers": 1, "heads": 2, "vocabulary_size": 300}
    scratch, source = Scratch(ScratchOptions(**size)), Pretrained(PretrainedOptions(path=str(folder)))
    loaded = scratch.load(head(FOUR[:3]), lambda: iter(WORDS.values()))
    scratch.save(loaded.model, loaded.processor, folder / "three")
    torch.manual_seed(1)
    loaded = source.load_folder(folder / "three", head(FOUR))
    source.save(loaded.model, loaded.processor, folder / "four")
    return folder


def recipe(folder: Path, start: str, classes: int) -> Path:
    """Of the classes as many; the first two come together."""
    groups = [["river", "hill"], ["tree"], ["star"]][: classes - 1]
    values = [[str(folder / f"{label}.jsonl") for label in group] for group in groups]
    filled = {"START": str(folder / start), "VALUES": str(values), "LABELS": json.dumps(FOUR[:classes])}
    text = RECIPE
    for key, value in filled.items():
        text = text.replace(key, value)
    return written(folder, text, f"{start}-{classes}.toml")


@pytest.fixture(scope="module")
def short(folder: Path) -> Path:
    """A finished run on the first three classes."""
    return ftk.run(recipe(folder, "three", 3), output=folder / "short").folder


@pytest.fixture(scope="module")
def grown(folder: Path, short: Path) -> ftk.RunResult:
    shutil.copytree(short, folder / "grown")
    return ftk.run(recipe(folder, "three", 4), output=folder / "grown")


@pytest.fixture(scope="module")
def declared(folder: Path) -> ftk.RunResult:
    return ftk.run(recipe(folder, "four", 4), output=folder / "declared")


def tensors(run: Path, stage: int) -> Iterator[tuple[str, torch.Tensor]]:
    """All that a stage left: the model's weights, and what each mitigation keeps."""
    place = run / "stages" / f"{stage}-task{stage}"
    for file in sorted([place / "model" / "model.safetensors", *(place / "state").glob("mitigation.*.safetensors")]):
        yield from ((f"{file.stem}: {name}", tensor) for name, tensor in load_file(file).items())


def test_a_grown_head_ends_as_one_that_had_its_classes_from_the_start(
    grown: ftk.RunResult, declared: ftk.RunResult
) -> None:
    found, expected = dict(tensors(grown.folder, 3)), dict(tensors(declared.folder, 3))
    assert found.keys() == expected.keys()
    kept = [
        name.partition(":")[0] for name, tensor in found.items() if "classifier.weight" in name and len(tensor) == 4
    ]
    assert {"model", "mitigation.ewc", "mitigation.synaptic_intelligence", "mitigation.mas", "mitigation.l2sp"} == {
        *kept
    }
    for name, tensor in found.items():
        told = expected[name]
        if name == "mitigation.der: task1/values":  # made when there were but three
            told = told[:, :3]
        assert_close(tensor, told, rtol=1e-3, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")
    rows = [report["matrix"]["accuracy"] for report in (grown.report, declared.report)]
    assert rows[0][2] == rows[1][2]
    assert rows[0][1][2] == rows[1][1][2] == 0.0, "a class that has not come is predicted of no row"


def test_rows_of_known_classes_stay_to_the_bit_and_what_is_kept_of_new_ones_is_zero(
    folder: Path, short: Path, grown: ftk.RunResult
) -> None:
    torch.manual_seed(1)
    loaded = Pretrained(PretrainedOptions(path=str(folder))).load_folder(short / "model", head(FOUR))
    before = load_file(short / "model" / "model.safetensors")
    for name, tensor in loaded.model.state_dict().items():
        if name in before:
            assert torch.equal(tensor[: len(before[name])], before[name])
    drawn = load_file(folder / "four" / "model.safetensors")["classifier.weight"][3]
    assert torch.equal(loaded.model.classifier.weight[3], drawn)
    assert drawn.std() == pytest.approx(0.02, rel=0.5)
    assert loaded.model.fresh_weights == ()
    config = json.loads((grown.folder / "model" / "config.json").read_text(encoding="utf-8"))
    assert list(config["id2label"].values()) == FOUR
    for name in ("ewc", "synaptic_intelligence", "mas"):
        state = load_file(grown.folder / "stages" / "3-task3" / "state" / f"mitigation.{name}.safetensors")
        (kept,) = [state[key] for key in state if key in ("fisher/classifier.weight", "importance/classifier.weight")]
        assert not kept[3].any()
        assert kept[:3].any()


def test_a_run_that_is_stopped_while_its_head_has_just_grown_goes_on(
    folder: Path, short: Path, grown: ftk.RunResult
) -> None:
    shutil.copytree(short, folder / "stopped")
    stopped: list[RunEvent] = []

    def stop(event: RunEvent) -> None:
        if event.kind == "step" and event.data["step"] == 2:
            stopped.append(event)

    longer = load_recipe(recipe(folder, "three", 4))
    with pytest.raises(Interrupted):
        run_recipe(longer, output=folder / "stopped", observers=[stop], stop=lambda: bool(stopped))
    run_recipe(longer, output=folder / "stopped")
    assert weights(folder / "stopped") == weights(grown.folder)


def test_a_stage_under_way_is_ended_before_classes_are_added(folder: Path) -> None:
    stopped: list[RunEvent] = []

    def stop(event: RunEvent) -> None:
        if event.kind == "step":
            stopped.append(event)

    plain = ["mitigation=[]"]
    with pytest.raises(Interrupted):
        run_recipe(
            load_recipe(recipe(folder, "three", 3), overrides=plain),
            output=folder / "way", observers=[stop], stop=lambda: bool(stopped),
        )  # fmt: skip
    with pytest.raises(UserError, match="a stage is under way, whose head has the classes that the recipe had"):
        ftk.run(recipe(folder, "three", 4), output=folder / "way", overrides=plain)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ('objective.labels=["river", "hill", "star", "tree"]', "objective.options.labels is"),
        ("objective.incremental=false", "objective.options.labels is"),
        ("sequence.values=SHORT", "objective.options.labels is"),
    ],
)
def test_classes_are_added_behind_those_that_there_are_and_with_stages(folder: Path, setting: str, said: str) -> None:
    held = load_recipe(recipe(folder, "three", 3)).resolved()
    longer = recipe(folder, "three", 4)
    asked = as_before(held, load_recipe(longer))
    assert asked["stages"][:2] == held["stages"]
    assert difference(held, asked) == ""
    values: list[Any] = [[str(folder / "river.jsonl"), str(folder / "hill.jsonl")], [str(folder / "tree.jsonl")]]
    setting = setting.replace("SHORT", str(values))
    assert said in difference(held, as_before(held, load_recipe(longer, overrides=[setting])))
