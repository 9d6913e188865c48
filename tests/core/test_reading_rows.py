"""Rows of files are read once for all runs, and again as soon as a file, an option or a transform changes."""

import json
import os
from pathlib import Path

import pytest
from datasets import Dataset

from ftk.data.cache import Cache
from ftk.data.keys import rows_key
from ftk.data.rows import RowReader
from ftk.errors import RunFailed, UserError
from ftk.testing import Subject
from ftk_plugins.datasets.files.files import Files

ROWS = [{"text": f"row {n}", "tags": ["a", None], "count": n} for n in range(30)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def reader(tmp_path: Path) -> RowReader:
    return RowReader(Cache(tmp_path / "cache"))


def spec(file: Path, **options):
    return Subject("dataset", "files", {"path": str(file), **options}).spec


def test_rows_come_back_as_they_were_read(tmp_path, file, monkeypatch):
    options = {"test_fraction": 0.2, "columns": {"number": "count"}}
    fresh = {split: Files(spec(file, **options).options).rows(split) for split in ("train", "test")}
    first = {split: reader(tmp_path).read(spec(file, **options), split) for split in fresh}
    monkeypatch.setattr(Files, "rows", None)  # whoever reads again fails
    again = {split: reader(tmp_path).read(spec(file, **options), split) for split in fresh}
    for split, rows in fresh.items():
        for found in (first[split], again[split]):
            assert found.rows.to_list() == rows.to_list()
            assert found.rows.features == rows.features
            assert found.key == rows_key(rows)
            assert found.rows.cache_files, "they are mapped from disk"


def test_what_changes_is_read_again(tmp_path, file):
    assert len(reader(tmp_path).read(spec(file), "train").rows) == 30
    assert len(reader(tmp_path).read(spec(file, limit=7), "train").rows) == 7
    before = file.stat()
    file.write_text(file.read_text().replace("row 3", "now 3"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))  # as a copy that keeps times would leave it
    assert reader(tmp_path).read(spec(file), "train").rows[3]["text"] == "now 3"


def test_mistakes_are_told_with_the_place_and_nothing_is_kept(tmp_path, file):
    with pytest.raises(UserError, match=r"^dataset: .*no column `txt`"):
        reader(tmp_path).read(spec(file, columns={"text": "txt"}), "train")
    with pytest.raises(UserError, match=r"^dataset: there is no file"):
        reader(tmp_path).read(spec(tmp_path / "missing.jsonl"), "train")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_source_that_breaks_is_named(tmp_path, file, monkeypatch):
    def breaks(self, split):
        raise PermissionError(13, "no entry")

    monkeypatch.setattr(Files, "rows", breaks)
    with pytest.raises(RunFailed, match=r"`files` failed: PermissionError"):
        reader(tmp_path).read(spec(file), "train")


def test_a_source_that_does_not_know_what_its_rows_depend_on_is_read_each_time(tmp_path, file, monkeypatch):
    calls = []

    def rows(self, split):
        calls.append(split)
        return Dataset.from_list(ROWS[:3])

    monkeypatch.setattr(Files, "identity", lambda self: None)
    monkeypatch.setattr(Files, "rows", rows)
    keys = [reader(tmp_path).read(spec(file), "train").key for _ in range(2)]
    assert calls == ["train", "train"]
    assert keys[0] == keys[1]
