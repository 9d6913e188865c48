"""The recipes that begin with a real sentence encoder, on few rows for a few steps."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoTokenizer, pipeline

import ftk
from ftk.events import RunEvent
from tests import material
from tests.conftest import fetched

pytestmark = pytest.mark.real_model

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, minilm_folder: Path) -> Iterator[Path]:
    """A folder with what the recipes read under ``material/``."""
    folder = tmp_path_factory.mktemp("minilm")
    fetched(lambda: material.write_rows(folder / "material"))
    (folder / "material" / "all-MiniLM-L6-v2").symlink_to(minilm_folder, target_is_directory=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder
    shutil.rmtree(folder, ignore_errors=True)


def run(here: Path, name: str, *overrides: str) -> ftk.RunResult:
    return ftk.run(RECIPES / f"{name}.toml", output=here / name, overrides=overrides)


def score(result: ftk.RunResult, metric: str, task: str) -> tuple[float, float]:
    """A task's score before and after."""
    column = result.report["tasks"].index(task)
    return result.report["start"][metric][column], result.report["matrix"][metric][-1][column]


def lines(here: Path, name: str, count: int) -> list[dict[str, str]]:
    with (here / "material" / f"{name}.jsonl").open(encoding="utf-8") as file:
        return [json.loads(line) for line, _ in zip(file, range(count), strict=False)]


def test_minilm_contrastive_measures_what_transformers_does(here: Path) -> None:
    result = run(
        here, "minilm_contrastive",
        "objective.max_length=24",
        "data.retain.limit=12", "data.retain_test.limit=12", "training.steps=2", "training.batch_size=8",
        "stage.trivia.data.train.limit=12", "stage.trivia.data.test.limit=12",
    )  # fmt: skip
    before, after = score(result, "mrr", "retain")
    assert before > 0.8, "the encoder is made for this"
    assert result.report["stages"][0]["mitigations"]["replay"]["rows"] == {"retain": 12}
    model = AutoModel.from_pretrained(result.folder / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(result.folder / "model")

    def embedded(texts: list[str]) -> torch.Tensor:
        inputs = tokenizer(texts, padding=True, truncation=True, max_length=24, return_tensors="pt")
        with torch.no_grad():
            states = model(**inputs).last_hidden_state
        mask = inputs["attention_mask"][..., None]
        return torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1)

    rows = lines(here, "coding-test", 12)
    similarities = embedded([row["instruction"] for row in rows]) @ embedded([row["output"] for row in rows]).T
    ranks = (similarities >= similarities.diagonal()[:, None]).sum(1)
    assert float((1 / ranks).mean()) == pytest.approx(after, abs=1e-3)


def test_minilm_classify_learns_labels_beside_the_retrieval(here: Path) -> None:
    few = "[{ use = 'few_shot', per_class = 4 }]"
    result = run(
        here, "minilm_classify",
        "objective.max_length=24", "data.retain.limit=11", "data.retain_test.limit=11",
        f"stage.languages.data.train.transform={few}", "stage.languages.data.test.limit=48",
        "stage.languages.objective.max_length=16",
        "training.steps=7", "training.batch_size=14", "training.learning_rate=4e-4",
    )  # fmt: skip
    before, after = score(result, "accuracy", "languages")
    assert after > before + 0.2
    assert score(result, "mrr", "retain")[0] > 0.8
    tell = pipeline("text-classification", model=str(result.folder / "model"))
    rows = lines(here, "languages-test", 48)
    told = tell([row["text"] for row in rows], truncation=True, max_length=16)
    right = [one["label"] == row["label"] for one, row in zip(told, rows, strict=True)]
    assert sum(right) / len(right) == pytest.approx(after, abs=0.03)


def test_few_shot_learns_from_as_many_rows_of_each_class(here: Path) -> None:
    told: list[RunEvent] = []
    result = ftk.run(
        RECIPES / "few_shot.toml", output=here / "few_shot", observers=[told.append],
        overrides=["data.train.transform.1.per_class=4", "objective.max_length=16", "training.steps=8"],
    )  # fmt: skip
    assert [event.data["rows"] for event in told if event.kind == "stage_started"] == [28]
    before, after = score(result, "accuracy", "few_shot")
    assert before < 0.35
    assert after > before + 0.2
