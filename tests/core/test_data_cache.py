"""The cache of encoded rows: whole entries or none, shared by processes, and rows that come back as they were."""

import multiprocessing
import os
import pickle
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

from ftk.data import pieces
from ftk.data.cache import Cache, key_of
from ftk.data.encoded import EncodedRows, flatten, write_rows
from ftk.data.keys import processor_key, rows_key
from ftk.data.pieces import in_pieces
from ftk.errors import Problem, RecipeError, RunFailed, UserError
from ftk.parts.views import digest_of, lengths_of
from ftk.testing import toy_tokenizer


def test_an_entry_is_computed_once(tmp_path):
    cache, calls = Cache(tmp_path / "cache"), []

    def compute(folder: Path) -> None:
        calls.append(folder)
        (folder / "numbers").write_text("123")

    key = key_of("a", {"b": [1]})
    first, again = cache.entry(key, compute), Cache(tmp_path / "cache").entry(key, compute)
    assert first == again
    assert (first / "numbers").read_text() == "123"
    assert len(calls) == 1
    assert key != key_of("a", {"b": [2]})
    assert cache.size() == 3
    cache.empty()
    assert cache.size() == 0
    cache.entry(key, compute)
    assert len(calls) == 2


def test_a_computation_that_fails_leaves_nothing(tmp_path):
    def fail(folder: Path) -> None:
        (folder / "half").write_text("1")
        raise KeyboardInterrupt

    cache = Cache(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        cache.entry("a", fail)
    assert list(tmp_path.iterdir()) == []


def slowly(folder: Path, seconds: float) -> None:
    def compute(aside: Path) -> None:
        (aside / "by").write_text(str(os.getpid()))
        time.sleep(seconds)

    Cache(folder).entry("a", compute)


def test_processes_share_one_computation_and_one_that_is_killed_is_no_hindrance(tmp_path):
    fork = multiprocessing.get_context("fork")
    killed = fork.Process(target=slowly, args=(tmp_path, 60))
    killed.start()
    while not list(tmp_path.glob(".a.partial/by")):
        time.sleep(0.01)
    waited = []
    waiting = Cache(tmp_path, lambda: waited.append(os.kill(killed.pid, signal.SIGKILL)))
    peers = [fork.Process(target=slowly, args=(tmp_path, 0.1)) for _ in range(2)]
    entry = waiting.entry("a", lambda folder: (folder / "by").write_text("a survivor"))
    for peer in peers:
        peer.start()
    for process in (killed, *peers):
        process.join()
    assert waited
    assert (entry / "by").read_text() == "a survivor"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_what_a_killed_process_left_is_cleaned_up_by_the_next(tmp_path):
    (tmp_path / ".old.partial").mkdir()
    (tmp_path / ".old.partial" / "0.values").write_text("half")
    Cache(tmp_path).entry("new", lambda folder: (folder / "x").write_text("1"))
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_a_folder_that_cannot_be_written_is_told_with_the_mend(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="FTK_CACHE"):
        Cache(tmp_path / "file").entry("a", lambda folder: None)


ROWS = [
    {"input_ids": np.array([1, 2, 3], np.int32), "labels": np.array([1, 2, 3], np.int32)},
    {"input_ids": np.array([4], np.int32), "weight": np.array([0.5, 0.25], np.float16)},
    {"input_ids": np.array([5, 6], np.int32), "labels": np.array([-100, 6], np.int32)},
]


def written(folder, rows, size):
    write_rows(folder, (flatten(rows[at : at + size], "it") for at in range(0, len(rows), size)), "it")
    return EncodedRows(folder)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_rows_come_back_as_they_were(tmp_path, size):
    found = written(tmp_path, ROWS, size)
    assert len(found) == 3
    for item, expected in zip(found, ROWS, strict=True):
        assert item.keys() == expected.keys()
        for name, array in expected.items():
            np.testing.assert_array_equal(item[name], array)
            assert item[name].dtype == array.dtype
    assert lengths_of(found).tolist() == [3, 2, 2]
    assert found[-1]["input_ids"].tolist() == [5, 6]
    assert [item["input_ids"][0] for item in found[1:]] == [4, 5]
    with pytest.raises(IndexError):
        found[3]
    with pytest.raises(ValueError, match="read-only"):
        found[0]["labels"][0] = 9


def test_the_digest_is_of_the_content(tmp_path):
    for name in "abc":
        (tmp_path / name).mkdir()
    other = [*ROWS[:2], {**ROWS[2], "labels": np.array([-100, 7], np.int32)}]
    digests = [written(tmp_path / name, rows, 2).digest for name, rows in zip("abc", (ROWS, ROWS, other), strict=True)]
    assert digests[0] == digests[1] != digests[2]


PICTURES = [
    {"pixels": np.arange(12, dtype=np.float32).reshape(3, 2, 2), "labels": np.array([1], np.int64)},
    {"labels": np.array([0], np.int64)},
    {"pixels": np.arange(6, dtype=np.float32).reshape(1, 3, 2), "labels": np.array([2], np.int64)},
    {"pixels": np.arange(6, dtype=np.float32).reshape(3, 1, 2), "late": np.array([[7]], np.int8)},
]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_arrays_of_any_shape_come_back_as_they_were(tmp_path, size):
    found = written(tmp_path, PICTURES, size)
    for item, expected in zip(found, PICTURES, strict=True):
        assert item.keys() == expected.keys()
        for name, array in expected.items():
            np.testing.assert_array_equal(item[name], array)
            assert (item[name].dtype, item[name].shape) == (array.dtype, array.shape)
    assert lengths_of(found).tolist() == lengths_of(PICTURES).tolist() == [1, 1, 1, 1]


def test_only_1_d_arrays_have_positions(tmp_path):
    rows = [{"pixels": np.zeros((5, 2)), "words": np.zeros(length)} for length in (3, 1)]
    assert lengths_of(written(tmp_path, rows, 2)).tolist() == lengths_of(rows).tolist() == [3, 1]


def test_the_shape_is_content(tmp_path):
    digests = []
    for number, row in enumerate(PICTURES[2:]):
        (tmp_path / str(number)).mkdir()
        only = [{"pixels": row["pixels"]}]
        digests += [written(tmp_path / str(number), only, 1).digest, digest_of(only)]
    assert len(set(digests)) == 4


@pytest.mark.parametrize("file", ["facts.json", "0.values", "1.ends", "2.shapes"])
def test_files_that_were_cut_short_are_told(tmp_path, file):
    written(tmp_path, [*ROWS, {"pixels": np.zeros((2, 2)), **ROWS[1]}] if "shapes" in file else ROWS, 2)
    file = next(tmp_path.glob("*.shapes")).name if "shapes" in file else file
    (tmp_path / file).write_bytes((tmp_path / file).read_bytes()[:-8])
    with pytest.raises(RunFailed, match="--empty-cache"):
        EncodedRows(tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [[1, 2], np.zeros((2, 2), np.int32), np.array(3), np.array(["a"]), np.array([], np.int32), np.array([1], np.int64)],
)
def test_features_that_are_no_arrays_of_one_type_are_refused(tmp_path, wrong):
    with pytest.raises(RunFailed, match="it encodes `input_ids`"):
        written(tmp_path, [*ROWS, {"input_ids": wrong}], 2)


def squares(rows, first):
    if any(row["n"] == 1777 for row in rows):
        raise UserError(f"row {first + 1}: bad", "mend it")
    return [row["n"] ** 2 for row in rows]


def test_workers_give_the_same_in_the_same_order(monkeypatch):
    numbers = Dataset.from_dict({"n": list(range(2500))})
    alone = list(in_pieces(numbers.select(range(1700)), squares, lambda: None))
    assert [done for done, _ in alone] == [1000, 1700]
    monkeypatch.setattr(pieces, "PAYS", 0.0)
    monkeypatch.setattr(pieces, "PIECE_ROWS", 100)
    monkeypatch.setattr(pieces, "worker_count", lambda: 2)
    forked = list(in_pieces(numbers.select(range(1700)), squares, lambda: None))
    assert [done for done, _ in forked] == list(range(100, 1701, 100))
    assert [n for _, part in forked for n in part] == [n for _, part in alone for n in part]
    found = []
    with pytest.raises(UserError, match=r"row 1701: bad\n  mend it") as caught:
        found.extend(in_pieces(numbers, squares, lambda: None))
    assert caught.value.hint == "mend it"


def test_a_worker_that_is_killed_and_a_signal_end_the_work(monkeypatch):
    monkeypatch.setattr(pieces, "PAYS", 0.0)
    monkeypatch.setattr(pieces, "PIECE_ROWS", 100)
    monkeypatch.setattr(pieces, "worker_count", lambda: 2)
    numbers, here = Dataset.from_dict({"n": list(range(1000))}), os.getpid()

    def dies(rows, first):
        if os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        return first

    with pytest.raises(RunFailed, match="was killed"):
        list(in_pieces(numbers, dies, lambda: None))
    calls = []

    def pause():
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(in_pieces(numbers, squares, pause))


def test_long_rows_make_small_pieces():
    assert pieces.piece_size(Dataset.from_dict({"text": ["x" * 10]})) == 1000
    assert 1 <= pieces.piece_size(Dataset.from_dict({"text": ["x" * 2**20] * 8})) <= 4


def test_errors_survive_the_way_between_processes():
    for error in (UserError("wrong", "mend"), RecipeError("r.toml", [Problem("a.b", "is wrong", "mend")])):
        back = pickle.loads(pickle.dumps(error))
        assert (type(back), str(back), back.message, back.hint) == (type(error), str(error), error.message, error.hint)


def test_keys_tell_what_matters():
    rows = Dataset.from_dict({"a": ["x", "y", "z"], "b": [1, 2, 3]})
    same = Dataset.from_dict({"a": ["w", "x", "y", "z"], "b": [0, 1, 2, 3]}).select([1, 2, 3])
    other = Dataset.from_dict({"a": ["x", "y", "z"], "b": [1, 2, 4]})
    assert rows_key(rows) == rows_key(same)
    assert len({rows_key(found) for found in (rows, other, rows.select([0, 1]), rows.rename_column("a", "c"))}) == 4
    tokenizer, templated = toy_tokenizer(), toy_tokenizer()
    templated.chat_template = "{{ messages }}"
    tokenizer("a", padding="max_length", max_length=8, truncation=True)  # leaves its mark on the tokenizer
    assert processor_key(tokenizer) == processor_key(toy_tokenizer())
    assert processor_key(tokenizer) != processor_key(templated)
    extended = toy_tokenizer()
    extended.add_tokens(["more"])
    assert processor_key(tokenizer) != processor_key(extended)
