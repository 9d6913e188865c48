"""Teachers of `distillation` that do not fit, that know more, and that have changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ftk import UserError
from ftk.testing import toy_context
from tests.plugins.objectives import classes, pictures, taught
from tests.plugins.objectives.taught import objective


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return taught.teachers(tmp_path_factory.mktemp("teachers"))


def spoiled(teachers: Path, folder: Path, change: Any) -> Path:
    """A copy of a teacher whose files were changed."""
    shutil.copytree(teachers / "labels", folder / "spoiled")
    change(folder / "spoiled")
    return folder / "spoiled"


def more_tokens(folder: Path) -> None:
    tokenizer = classes.tokenizer()
    tokenizer.add_tokens(["<|more|>"])
    tokenizer.save_pretrained(folder)


def other_numbers(folder: Path) -> None:
    text = json.loads((folder / "tokenizer.json").read_text())
    text["model"]["vocab"]["a"], text["model"]["vocab"]["b"] = text["model"]["vocab"]["b"], text["model"]["vocab"]["a"]
    (folder / "tokenizer.json").write_text(json.dumps(text))


def other_order(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {"0": "good", "1": "even", "2": "bad"}
    (folder / "config.json").write_text(json.dumps(config))


def no_head(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    classes.bert(hidden_size=24).bert.save_pretrained(folder)  # type: ignore[operator, union-attr]
    other = json.loads((folder / "config.json").read_text())
    other["id2label"] = {"0": "bad", "1": "even", "2": "good"}
    (folder / "config.json").write_text(json.dumps(other))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (shutil.rmtree, "the teacher: no folder"),
        (other_numbers, r"another vocabulary than the student: 259 tokens .*, here 259 .*they differ in '[ab]'"),
        (other_order, "tells the labels good, even, bad, in this order; the student learns bad, even, good"),
        (no_head, "was not trained for sequence_classification, and lacks classifier"),
        (lambda folder: (folder / "model.safetensors").unlink(), "the teacher: .* has no weights in safetensors"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(teachers: Path, tmp_path: Path, change: Any, message: str) -> None:
    of = {"use": "classification", "labels": ("bad", "even", "good")}
    made = objective(spoiled(teachers, tmp_path, change), of)
    student = classes.bert()
    with pytest.raises(UserError, match=message) as told:
        made.begin(toy_context(student, made, processor=classes.tokenizer()))
    assert told.value.hint


def test_a_teacher_may_know_more_tokens_and_a_student_may_not(teachers: Path, tmp_path: Path) -> None:
    of = {"use": "classification", "labels": ("bad", "even", "good")}
    teacher, student = spoiled(teachers, tmp_path, more_tokens), classes.bert()
    known = classes.tokenizer()
    known.add_tokens(["<|more|>"])
    made = objective(teacher, of)
    for tokenizer in (classes.tokenizer(), known):
        made.begin(toy_context(student, made, processor=tokenizer))
    made = objective(teachers / "labels", of)
    with pytest.raises(UserError, match=r"they differ in '<.more.>', which is unknown there"):
        made.begin(toy_context(student, made, processor=known))


@pytest.mark.parametrize("other", [{"size": {"height": 4, "width": 4}}, {"image_mean": [0.1, 0.1, 0.1]}], ids=str)
def test_a_teacher_of_other_images_is_refused(teachers: Path, tmp_path: Path, other: dict[str, Any]) -> None:
    of = {"use": "image_classification", "labels": ("bar", "cup", "dot")}
    made, student = objective(teachers / "images", of), pictures.vit()
    made.begin(toy_context(student, made, processor=pictures.processor()))
    its = type(pictures.processor())(**{"size": {"height": 8, "width": 8}, **other})
    with pytest.raises(UserError, match="images sees images in another way than the student: 8 by 8 where that sees"):
        objective(teachers / "images", of).begin(toy_context(student, made, processor=its))


def test_a_teacher_that_has_changed_is_another_one(teachers: Path, tmp_path: Path) -> None:
    def known() -> str | None:
        return objective(tmp_path / "spoiled", {"use": "causal_lm"}).identity()

    spoiled(teachers, tmp_path, lambda folder: (folder / "README.md").write_text("as it was"))
    first = known()
    (tmp_path / "spoiled" / "README.md").write_text("said otherwise")
    assert known() == first is not None
    weights = (tmp_path / "spoiled" / "model.safetensors").read_bytes()
    (tmp_path / "spoiled" / "model.safetensors").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    assert known() != first
    assert objective(Path("owner/name"), {"use": "causal_lm"}).identity() is None


def test_a_revision_is_asked_of_the_hub_and_of_no_folder(teachers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of = {"use": "classification", "labels": ("bad", "even", "good")}
    student, asked = classes.bert(), []

    def from_hub(path: str, **given: Any) -> None:
        asked.append((path, given["revision"]))
        raise OSError("not here")

    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", from_hub)
    for teacher, message in ((Path("owner/name"), "owner/name"), (teachers / "labels", "is a folder here")):
        made = objective(teacher, of, teacher_revision="v2")
        with pytest.raises(UserError, match=message):
            made.begin(toy_context(student, made, processor=classes.tokenizer()))
    assert asked == [("owner/name", "v2")]
