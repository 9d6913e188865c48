"""The data set `hub`: what is asked of the `datasets` library, and a local copy read through it."""

import importlib
import json

import datasets
import pytest
from datasets import Dataset, DatasetDict
from datasets.exceptions import DatasetNotFoundError

from ftk import UserError
from ftk_plugins.datasets.hub.hub import Hub
from ftk_plugins.datasets.hub.options import HubOptions


def hub(**options):
    return Hub(HubOptions(**{"path": "someone/sums", **options}))


def rows_of(split, count):
    return Dataset.from_list([{"question": f"{split} {n}", "answer": str(n)} for n in range(count)])


@pytest.fixture
def asked(monkeypatch):
    """A hub with three splits; records what it is asked."""
    calls = []
    splits = DatasetDict(train=rows_of("train", 10), validation=rows_of("validation", 3), extra=rows_of("extra", 2))

    def load_dataset(path, **arguments):
        calls.append((path, arguments))
        return splits if arguments["split"] is None else splits[arguments["split"]]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return calls


def test_each_role_reads_its_own_split(asked):
    source = hub()
    assert source.splits() == ("train", "validation")
    assert [row["question"] for row in source.rows("validation")] == [
        "validation 0",
        "validation 1",
        "validation 2",
    ]
    assert len(source.rows("train")) == 10
    assert asked == [("someone/sums", {"name": None, "split": None, "revision": None})]
    with pytest.raises(UserError, match=r"no split `test`; it has train, validation, extra"):
        source.rows("test")


def test_config_and_revision_are_handed_on(asked):
    hub(config="easy", revision="v1").rows("train")
    assert asked == [("someone/sums", {"name": "easy", "split": None, "revision": "v1"})]


def test_split_goes_for_every_role(asked):
    source = hub(split="extra")
    assert source.splits() == ()
    assert len(source.rows("train")) == len(source.rows("test")) == 2
    assert [arguments["split"] for _, arguments in asked] == ["extra"]


def test_fractions_divide_the_training_split_or_the_one_named(asked):
    source = hub(validation_fraction=0.3, seed=1)
    assert source.splits() == ("train", "validation")
    questions = [row["question"] for split in source.splits() for row in source.rows(split)]
    assert (len(source.rows("train")), len(source.rows("validation"))) == (7, 3)
    assert sorted(questions) == [f"train {n}" for n in range(10)]
    other = hub(validation_fraction=0.3, seed=2)
    assert list(other.rows("validation")) != list(source.rows("validation"))
    assert len(hub(test_fraction=0.5, split="extra").rows("test")) == 1


def test_columns_and_limit_hold_for_each_split(asked):
    source = hub(columns={"instruction": "question"}, limit=2)
    assert list(source.rows("validation"))[1] == {"instruction": "validation 1", "answer": "1"}
    assert len(source.rows("train")) == len(source.rows("validation")) == 2
    with pytest.raises(UserError, match=r"the data set someone/sums has no column `questions`.*\n.*`question`"):
        hub(columns={"instruction": "questions"}).rows("train")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            ConnectionError("no route"),
            r"cannot be reached for someone/sums: no route\n.*put a copy .* into a folder",
        ),
        (DatasetNotFoundError("who?"), r"no data set someone/sums on the hub.*\n.*hf auth login"),
        (
            ValueError("BuilderConfig 'x' not found. Available: ['easy']"),
            r"Available: \['easy'\]\n.*`config`",
        ),
    ],
)
def test_what_goes_wrong_is_said_with_the_mend(monkeypatch, error, words):
    def load_dataset(*args, **kwargs):
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(UserError, match=words):
        hub().rows("train")


def test_a_folder_with_a_copy_is_read_without_the_hub(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    bars = importlib.import_module("datasets.utils.tqdm")
    monkeypatch.setattr(bars, "HF_DATASETS_DISABLE_PROGRESS_BARS", None)
    monkeypatch.setattr(bars, "_hf_datasets_progress_bars_disabled", False)
    folder = tmp_path / "sums"
    folder.mkdir()
    for split, count in (("train", 4), ("test", 2)):
        lines = (json.dumps(row) for row in rows_of(split, count))
        (folder / f"{split}.jsonl").write_text("\n".join(lines))
    monkeypatch.setenv("HOME", str(tmp_path))
    source = hub(path="~/sums")
    assert source.splits() == ("train", "test")
    assert [row["question"] for row in source.rows("test")] == ["test 0", "test 1"]
    assert len(hub(path=str(folder), split="train[:50%]").rows("train")) == 2
    assert "examples/s" not in capfd.readouterr().err
    assert not datasets.are_progress_bars_disabled()
