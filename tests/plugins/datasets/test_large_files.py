"""The data set `files` where Arrow's own reader takes over: the same rows and the same mistakes."""

import json

import pytest

from ftk import UserError
from ftk_plugins.datasets.files import readers
from ftk_plugins.datasets.files.files import Files
from ftk_plugins.datasets.files.options import FilesOptions
from tests.plugins.datasets.test_files import read, write

ODD_ROWS = {
    "all alike": [],
    "missing and null": [{"a": "x"}, {"a": None, "b": 2, "c": None}],
    "a further column": [{"a": "x", "b": 1, "c": [], "d": "new"}],
    "a number with a point": [{"a": "x", "b": 1.5, "c": []}],
    "escapes": [{"a": '\u00e9 \\ " \n \U0001f600', "b": 1, "c": ["\u4e2d"]}],
    "a nested null": [{"a": "x", "b": 1, "c": ["y", None]}],
    "a large number": [{"a": "x", "b": 2**62, "c": []}],
}


@pytest.mark.parametrize("odd", ODD_ROWS, ids=str)
def test_large_files_are_read_as_small_ones(tmp_path, monkeypatch, odd):
    rows = [{"a": f"text {n}", "b": n, "c": [str(n)]} for n in range(12)] + ODD_ROWS[odd]
    file = write(
        tmp_path, "rows.jsonl", "\n".join(json.dumps(row, ensure_ascii=bool(n % 2)) for n, row in enumerate(rows))
    )
    expected = Files(FilesOptions(path=str(file))).rows("train")
    monkeypatch.setattr(readers, "_ROWS_AT_A_TIME", 10)
    found = Files(FilesOptions(path=str(file))).rows("train")
    assert found.to_list() == expected.to_list()
    assert found.features == expected.features


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"a": "x"} {"a": "y"}', "line 12: no valid JSON"),
        ('{"a": ', "line 12: no valid JSON"),
        ('{"a": 3}', "line 12: column `a` holds a number, and text before"),
        ("[1]", "line 12 holds a list"),
        ('{"a": NaN}', "column `a` holds a number"),
        ('\n{"a": "after a blank line"}', ""),
    ],
)
def test_large_files_have_the_mistakes_of_small_ones(tmp_path, monkeypatch, line, words):
    monkeypatch.setattr(readers, "_ROWS_AT_A_TIME", 10)
    text = "".join(json.dumps({"a": f"text {n}"}) + "\n" for n in range(11))
    file = write(tmp_path, "rows.jsonl", text + line + "\n")
    if words:
        with pytest.raises(UserError, match=words):
            read(file)
    else:
        assert [row["a"] for row in read(file)][-1] == "after a blank line"


def test_bytes_that_are_no_text_are_told_in_large_files_too(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "_ROWS_AT_A_TIME", 10)
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b'{"a": "x"}\n' * 12 + b'{"a": "\xff"}\n')
    with pytest.raises(UserError, match="is not utf-8 text"):
        read(file)
