"""ftk data: what it counts, what it shows, what it writes, what it refuses."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from datasets import Dataset

from ftk.cli import cli
from ftk.planning.survey import BINS, Piece, describe_lengths, pieces_of
from ftk.plugin.discovery import load_registry
from ftk.plugin.registry import Entry, Registry
from ftk.plugin.variant import Variant
from ftk.testing import toy_tokenizer

ROWS = [{"prompt": "q" * (3 + n), "completion": "a" * (1 + n % 4)} for n in range(20)]


def ftk_data(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["data", *map(str, arguments)])


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty rows to learn, three of them among the five that are tested, and ten to replay."""
    folder = tmp_path_factory.mktemp("surveyed")
    tests = [*ROWS[:3], {"prompt": "other", "completion": "b"}, {"prompt": "another", "completion": "c"}]
    for name, rows in {"train": ROWS, "test": tests, "old": ROWS[5:15]}.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    toy_tokenizer().save_pretrained(folder / "bytes")
    path = folder / "recipe.toml"
    path.write_text(
        f"""
        name = "surveyed"
        model = {{ use = "scratch", hidden_size = 32, layers = 1, heads = 2, tokenizer = "{folder}/bytes" }}
        objective = {{ use = "instruction", chat_template = "never", packing = false }}
        adaptation = {{ use = "full" }}
        mitigation = [{{ use = "replay", share = 0.2 }}]
        evaluator = [{{ use = "perplexity" }}]
        [data]
        train = {{ use = "files", path = "{folder}/train.jsonl" }}
        test = {{ use = "files", path = "{folder}/test.jsonl" }}
        retain = {{ use = "files", path = "{folder}/old.jsonl" }}
        retain_test = {{ use = "files", path = "{folder}/old.jsonl" }}
        """,
        encoding="utf-8",
    )
    return path


def surveyed(recipe: Path, *arguments: str) -> dict[str, Any]:
    result = ftk_data(recipe, "--json", *arguments)
    assert result.exit_code == 0, result.output
    told: dict[str, Any] = json.loads(result.stdout)
    return told


def test_what_it_counts(recipe: Path) -> None:
    told = surveyed(recipe)
    old, new = told["tasks"]
    assert [old["task"], new["task"]] == ["retain", "surveyed"]
    train = new["roles"]["train"]
    # A byte is a token; beside the bytes a row has a token at its end, which is learned with the answer.
    lengths = [len(row["prompt"]) + len(row["completion"]) + 1 for row in ROWS]
    assert (train["read"], train["rows"], train["items"], train["steps"]) == (20, 20, 20, [])
    assert train["tokens"] == sum(lengths)
    assert train["learned"] == sum(len(row["completion"]) + 1 for row in ROWS)
    assert (train["lengths"]["least"], train["lengths"]["most"]) == (min(lengths), max(lengths))
    assert train["lengths"]["median"] == np.median(lengths)
    assert train["cut"] == {"rows": 0, "tokens": 0}
    assert new["overlaps"] == [{"place": "data.test", "rows": 3, "of": 5}]
    assert new["mix"]["shares"] == {"train": 0.8, "replay": 0.2}
    assert new["mix"]["items_per_epoch"] == 25
    assert old["mix"]["shares"] == {"train": 1.0}


def test_what_max_length_cuts_off(recipe: Path) -> None:
    cut = ("surveyed", "--set", "objective.max_length=20", "--set", "objective.long_rows=cut_start")
    lost = [max(0, len(row["prompt"]) + len(row["completion"]) + 1 - 20) for row in ROWS]
    train = surveyed(recipe, *cut)["tasks"][0]["roles"]["train"]
    assert sum(lost) > 0
    assert train["cut"] == {"rows": sum(each > 0 for each in lost), "tokens": sum(lost)}


def test_examples_show_what_is_learned(recipe: Path) -> None:
    [task] = surveyed(recipe, "surveyed", "--examples", "3")["tasks"]
    assert [example["row"] for example in task["examples"]] == [1, 11, 20], "spread over all rows"
    for example in task["examples"]:
        row = ROWS[example["row"] - 1]
        read, learned = example["pieces"]
        assert (read["text"], read["learned"], learned["learned"]) == (row["prompt"], False, True)
        assert learned["text"].startswith(row["completion"])
    told = ftk_data(recipe, "surveyed", "--examples", "1").stdout
    assert "stands in » «" in told
    assert "qqq»a" in told


def test_it_tells_what_each_transform_dropped_and_why(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = Variant(name="odd", summary="Of the test.", options="ftk:Options", build="tests.core.step_parts:Odd")
    known = load_registry(third_party=False)
    entry = Entry("transform", odd, "of-the-test", "1", "test")
    monkeypatch.setattr("ftk.cli.data.registry", lambda: Registry((), (*known.entries(), entry)))
    dropping = ("--set", "data.train.transform=[{use='odd'}]")
    as_text = ("--set", "objective={use='causal_lm', text='prompt'}", "--set", "mitigation=[]")
    told = ftk_data(recipe, "surveyed", *dropping, *as_text)
    assert told.exit_code == 0, told.output
    assert "odd: 20 -> 10 rows" in told.stdout
    assert "dropped 10: of an odd number" in told.stdout
    assert "        qqqq\n" in told.stdout, "an example of what was dropped"


def test_it_tells_what_a_mixture_is_made_of(recipe: Path) -> None:
    folder = recipe.parent
    parts = (
        f"{{new={{use='files', path='{folder}/train.jsonl', share=0.75, transform=[{{use='deduplicate'}}]}}, "
        f"old={{use='files', path='{folder}/old.jsonl'}}}}"
    )
    options = ("surveyed", "--set", f"data.train={{use='mixture', parts={parts}}}")
    role = surveyed(recipe, *options)["tasks"][0]["roles"]["train"]
    assert (role["read"], role["rows"]) == (26, 26)
    new, old = role["parts"]["new"], role["parts"]["old"]
    assert (new["drawn"], new["distinct"], new["rows"], new["share"]) == (20, 20, 20, 20 / 26)
    assert (old["drawn"], old["distinct"], old["rows"], old["share"]) == (6, 6, 10, 6 / 26)
    assert new["place"] == "data.train.parts.new"
    assert [step["name"] for step in new["steps"]] == ["deduplicate"]
    told = ftk_data(recipe, *options, "--set", "data.train.when_out='repeat'").stdout
    assert "75.0% new: 30 drawn of its 20 rows, 10 times one that was drawn before" in told
    assert "25.0% old: 10 drawn of its 10 rows\n" in told


def test_it_writes_the_final_rows(recipe: Path, tmp_path: Path) -> None:
    told = surveyed(recipe, "--save", str(tmp_path / "rows"))
    assert len(told["saved"]) == 4
    assert Dataset.from_parquet(str(tmp_path / "rows/surveyed/train.parquet")).to_list() == ROWS  # type: ignore[union-attr]
    again = ftk_data(recipe, "--save", tmp_path / "rows")
    assert again.exit_code == 2
    assert "is not empty" in again.stderr


def test_what_it_refuses(recipe: Path) -> None:
    wrong = ftk_data(recipe, "surveed")
    assert wrong.exit_code == 2
    assert "no task `surveed`" in wrong.stderr
    assert "`surveyed`" in wrong.stderr
    assert ftk_data(recipe, "--set", "data.train.path=nowhere").exit_code == 2


@pytest.mark.parametrize("lengths", [[7], [1, 2, 3], list(range(5, 300, 7)), [3, 3, 3, 900]])
def test_a_histogram_holds_every_row_once(lengths: list[int]) -> None:
    bars = describe_lengths(np.array(lengths))["histogram"]
    assert len(bars) <= BINS
    assert bars[0]["from"] == min(lengths)
    assert bars[-1]["to"] == max(lengths)
    assert [bar["rows"] for bar in bars] == [sum(bar["from"] <= n <= bar["to"] for n in lengths) for bar in bars]
    assert all(one["to"] + 1 == other["from"] for one, other in itertools.pairwise(bars))


def test_rows_that_are_not_of_tokens_come_without_pieces() -> None:
    assert pieces_of({"pixel_values": np.zeros(4, np.float32)}, None) == []
    ids = np.array(toy_tokenizer()("ab")["input_ids"], np.int32)
    assert pieces_of({"input_ids": ids}, toy_tokenizer()) == [Piece("ab", False)]
