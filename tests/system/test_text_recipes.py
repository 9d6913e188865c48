"""The recipes that read and answer texts, made small: what each says that it shows is there to be seen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

import ftk

ROOT = Path(__file__).parents[2]


def run_small(name: str, folder: Path, overrides: tuple[str, ...], without: tuple[str, ...] = ()) -> ftk.RunResult:
    recipe = ROOT / "recipes" / f"{name}.toml"
    result = ftk.run(recipe, output=folder, overrides=overrides, without=without)
    assert result.report["status"] == "completed"
    return result


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recipes name their rows by paths from there."""
    monkeypatch.chdir(ROOT)


def test_gpt_pretrain_then_instruct_goes_on_reading(tmp_path: Path) -> None:
    small = (
        "model.hidden_size=48", "model.layers=1", "model.heads=2", "training.learning_rate=8e-3",
        "stage.reading.data.train.limit=60", "stage.reading.data.test.limit=20", "stage.reading.training.steps=40",
        "stage.answering.data.train.limit=3", "stage.answering.data.test.limit=3",
        "stage.answering.data.probes.only_read.limit=2", "stage.answering.training.steps=40",
    )  # fmt: skip
    read = []
    for without in ((), ("replay",)):
        result = run_small("gpt_pretrain_then_instruct", tmp_path / f"run{len(without)}", small, without)
        read.append([row[0] for row in result.report["matrix"]["perplexity"]])
        assert result.report["matrix"]["keyword_accuracy"][1][1] > 0.3
    kept, plain = read
    assert kept[0] == plain[0] < 0.3 * result.report["start"]["perplexity"][0]
    assert plain[1] > 1.5 * plain[0], "answering alone forgets how to read"
    assert kept[1] < 1.2 * kept[0]


def test_llama_qa_zh_answers_in_chinese_what_is_asked_in_other_words(tmp_path: Path) -> None:
    facts = 3
    small = (
        "model.hidden_size=64", "model.layers=1", "model.heads=2",
        "stage.capitals.data.train.limit=3", "stage.capitals.data.test.limit=3",
        "stage.capitals.data.probes={}", "stage.capitals.training.steps=15",
        f"stage.language_models.data.train.limit={8 * facts}", f"stage.language_models.data.test.limit={2 * facts}",
        "stage.language_models.training.steps=80", "training.batch_size=16",
        "stage.capitals.training.learning_rate=5e-3", "stage.language_models.training.learning_rate=5e-3",
    )  # fmt: skip
    result = run_small("llama_qa_zh", tmp_path / "run", small)
    right = result.report["matrix"]["keyword_accuracy"]
    assert result.report["start"]["keyword_accuracy"] == [0, 0]
    assert result.report["stages"][1]["mitigations"]["replay"]["rows"] == {"capitals": 18}
    assert right[1][1] > 0.6, "what was taught, asked in other words"
    tokenizer = AutoTokenizer.from_pretrained(result.folder / "model")
    asked = "LoRA训练哪些参数？"
    assert tokenizer.decode(tokenizer(asked)["input_ids"]) == asked


def rows(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((ROOT / "recipes" / "data" / name).read_text(encoding="utf-8"))
    return found


def test_the_chinese_rows_ask_for_each_fact_in_words_of_their_own() -> None:
    taught, asked = rows("llm_qa_zh.json"), rows("llm_qa_zh_test.json")
    assert all(set(row) == {"instruction", "input", "output", "keywords"} for row in taught + asked)
    assert all(word in row["output"] for row in taught + asked for word in row["keywords"])
    facts = {row["output"] for row in taught}
    assert len(facts) >= 40
    assert {row["output"] for row in asked} == facts
    questions = [row["instruction"] for row in taught + asked]
    assert len(set(questions)) == len(questions)


def test_intermediate_task_leaves_each_task_its_head(tmp_path: Path) -> None:
    """What films teach about hotels takes the whole recipe to see; here are stages, heads and what is replayed."""
    small = (
        "model.hidden_size=32", "model.layers=1", "model.heads=2", "model.vocabulary_size=600",
        "stage.reading.data.train.limit=60", "stage.films.data.train.limit=60", "stage.hotels.data.test.limit=12",
        "stage.reading.training.steps=25", "stage.reading.training.learning_rate=1e-2",
        "stage.films.training.steps=1", "stage.hotels.training.steps=5",
    )  # fmt: skip
    result = run_small("intermediate_task", tmp_path / "run", small)
    report = result.report
    words = [row[0] for row in report["matrix"]["perplexity"]]
    assert max(words) < 0.5 * report["start"]["perplexity"][0]
    assert [stage["steps"] for stage in report["stages"]] == [25, 1, 5]
    assert set(report["stages"][2]["mitigations"]["replay"]["rows"]) == {"reading", "films"}
    for folder, labels in (("stages/2-films/model", {"positive", "negative"}), ("model", {"praise", "complaint"})):
        told = json.loads((result.folder / folder / "config.json").read_text(encoding="utf-8"))
        assert set(told["id2label"].values()) == labels
        assert told["classifier_pooling"] == "mean"


def lines(name: str) -> list[dict[str, Any]]:
    text = (ROOT / "recipes" / "data" / name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_hotels_are_told_of_in_words_that_only_films_have_labels_for() -> None:
    taught, asked, read = (lines(f"hotels{end}.jsonl") for end in ("", "_test", "_unlabelled"))
    sentences = [row["text"] for row in taught + asked + read]
    assert len(set(sentences)) == len(sentences), "no sentence of the test is read without its label either"
    assert [sum(row["label"] == label for row in taught) for label in ("praise", "complaint")] == [8, 8]
    known = {word.strip(".,!") for row in taught for word in row["text"].split()}
    opinions = {word.strip(".,!") for row in lines("films.jsonl") for word in row["text"].lower().split()} - known
    assert all(opinions & {word.strip(".,!") for word in row["text"].split()} for row in asked)


def test_domain_adaptive_guards_general_reading(tmp_path: Path) -> None:
    """What the domain's texts are worth takes the whole recipe to see; here is what replay keeps of the others."""
    small = (
        "model.hidden_size=32", "model.layers=1", "model.heads=2", "model.vocabulary_size=800",
        "stage.general.data.train.limit=60", "stage.general.data.test.limit=20", "stage.medical.data.train.limit=60",
        "stage.wards.data.test.limit=12", "stage.general.training.steps=40", "stage.medical.training.steps=30",
        "stage.wards.training.steps=3", "training.learning_rate=1e-2",
    )  # fmt: skip
    general = []
    for without in ((), ("replay",)):
        report = run_small("domain_adaptive", tmp_path / f"run{len(without)}", small, without).report
        assert report["tasks"] == ["general", "medical", "wards"]
        general.append([row[0] for row in report["matrix"]["perplexity"]])
    guarded, plain = general
    assert guarded[0] == plain[0] < 0.2 * report["start"]["perplexity"][0]
    assert plain[2] > 1.2 * plain[0]
    assert guarded[2] - guarded[0] < 0.7 * (plain[2] - plain[0])


def test_no_sentence_of_the_medical_notes_stands_in_the_medical_texts() -> None:
    texts = (ROOT / "recipes" / "data" / "medical.txt").read_text(encoding="utf-8")
    taught, asked = lines("medical_notes.jsonl"), lines("medical_notes_test.jsonl")
    for row in taught + asked:
        assert not [sentence for sentence in row["text"].removesuffix(".").split(". ") if f"{sentence}." in texts]
    assert len({row["text"] for row in taught + asked}) == len(taught) + len(asked)
    assert len(taught) == 32
