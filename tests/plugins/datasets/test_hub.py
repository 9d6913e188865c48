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


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A local copy of a data set whose training split has four files of three rows, and its test split two."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    for split, files in (("train", 4), ("test", 2)):
        for n in range(files):
            file = tmp_path / "big" / "data" / f"{split}-{n:05}-of-{files:05}.jsonl"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("".join(json.dumps({"question": f"{split} {n} {row}"}) + "\n" for row in range(3)))
    return tmp_path / "big"


def files_of(rows):
    return sorted({row["question"].rpartition(" ")[0] for row in rows})


def test_some_shards_of_each_split_are_read_and_no_others(folder):
    for file in ("train-00002-of-00004", "train-00003-of-00004"):
        (folder / "data" / f"{file}.jsonl").write_text("is never opened")
    source = hub(path=str(folder), shards=2)
    assert source.splits() == ("train", "test")
    assert files_of(source.rows("train")) == ["train 0", "train 1"]
    assert files_of(source.rows("test")) == ["test 0", "test 1"]
    assert files_of(hub(path=str(folder), shards=1, split="test").rows("train")) == ["test 0"]
    with pytest.raises(UserError, match=r"at most 4 files in a split, so that `shards = 4` leaves out none"):
        hub(path=str(folder), shards=4).rows("train")


def test_files_by_pattern_are_the_training_split(folder):
    (folder / "data" / "train-00000-of-00004.jsonl").write_text("is never opened")
    source = hub(path=str(folder), data_files=["data/*-00001-*.jsonl"])
    assert source.splits() == ("train",)
    assert files_of(source.rows("train")) == ["test 1", "train 1"]
    assert files_of(hub(path=str(folder), data_files=["data/train-*[123]-of*"], shards=1).rows("train")) == ["train 1"]
    with pytest.raises(UserError, match=r"cannot be loaded: .*\n.*`data_files`"):
        hub(path=str(folder), data_files=["nothing-*"]).rows("train")


def test_a_stream_fetches_the_first_rows_and_no_more(folder):
    (folder / "data" / "train-00003-of-00004.jsonl").write_text("is never opened")
    source = hub(path=str(folder), stream=True, limit=5)
    assert [row["question"] for row in source.rows("train")] == [f"train {n // 3} {n % 3}" for n in range(5)]
    assert len(hub(path=str(folder), stream=True, limit=2, split="test").rows("test")) == 2
    divided = hub(path=str(folder), stream=True, limit=6, test_fraction=0.5)
    assert (len(divided.rows("train")), len(divided.rows("test"))) == (3, 3)
    assert not list(folder.parent.glob("cache/**/*.arrow")), "nothing is converted as a whole"


def test_a_stream_is_kept_where_its_revision_is_a_commit():
    commit = "0123456789" * 4
    assert hub(stream=True, limit=5, revision=commit).identity()
    assert hub(stream=True, limit=5, revision="main").identity() is None
    assert hub(limit=5, revision=commit).identity() is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"stream": True}, "say how many with `limit`"),
        ({"stream": True, "limit": 3, "split": "train[:5]"}, "leave out one"),
    ],
)
def test_a_stream_that_cannot_be(options, words):
    with pytest.raises(ValueError, match=words):
        HubOptions(path="x", **options)
