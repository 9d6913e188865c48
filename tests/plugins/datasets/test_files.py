"""The data set `files`: what is read from each format, and what is said where a file is wrong."""

import csv
import gzip
import json

import pyarrow as pa
import pyarrow.parquet
import pytest
from pydantic import ValidationError

from ftk import UserError
from ftk_plugins.datasets.files.files import Files
from ftk_plugins.datasets.files.options import FilesOptions

ROWS = [{"question": f"What is {n} + {n}?", "answer": str(2 * n)} for n in range(20)]


def read(path, split="train", **options):
    return list(Files(FilesOptions(path=path if isinstance(path, list) else str(path), **options)).rows(split))


@pytest.fixture
def jsonl(tmp_path):
    file = tmp_path / "sums.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return file


def write(tmp_path, name, text, encoding="utf-8"):
    file = tmp_path / name
    file.write_text(text, encoding=encoding)
    return file


def test_every_format_gives_the_same_rows(tmp_path, jsonl):
    text = jsonl.read_text()
    write(tmp_path, "list.json", json.dumps(ROWS, indent=1))
    write(tmp_path, "lines.json", text)
    pa.parquet.write_table(pa.Table.from_pylist(ROWS), tmp_path / "sums.parquet")
    (tmp_path / "packed.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    write(tmp_path, "marked.ndjson", text, "utf-8-sig")
    for name, delimiter in (("sums.csv", ","), ("sums.tsv", "\t")):
        with (tmp_path / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, ["question", "answer"], delimiter=delimiter)
            writer.writeheader()
            writer.writerows(ROWS)
    names = [
        "sums.jsonl",
        "list.json",
        "lines.json",
        "sums.parquet",
        "packed.jsonl.gz",
        "marked.ndjson",
        "sums.csv",
        "sums.tsv",
    ]
    for name in names:
        assert read(tmp_path / name) == ROWS, name


def test_format_goes_before_the_suffix(jsonl, tmp_path):
    renamed = jsonl.rename(tmp_path / "sums.data")
    assert read(renamed, format="jsonl") == ROWS
    with pytest.raises(UserError, match=r"sums.data: no format goes with this suffix"):
        read(renamed)


def test_paths_may_be_lists_patterns_and_under_home(jsonl, tmp_path, monkeypatch):
    (tmp_path / "b.jsonl").write_text('{"question": "b", "answer": "c"}\n')
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "[d].jsonl").write_text('{"question": "d", "answer": "e"}\n')
    assert len(read(str(tmp_path / "*.jsonl"))) == 21
    assert read(str(tmp_path / "*.jsonl"))[0]["question"] == "b"
    assert len(read(str(tmp_path / "**" / "*.jsonl"))) == 22
    assert len(read([str(jsonl), str(tmp_path / "*.jsonl")])) == 21
    assert read(str(tmp_path / "deep" / "[d].jsonl")) == [{"question": "d", "answer": "e"}]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read("~/sums.jsonl") == ROWS


def test_a_changed_file_is_read_anew(jsonl):
    assert len(read(jsonl)) == 20
    stamp = jsonl.stat().st_mtime
    jsonl.write_text('{"question": "x", "answer": "y"}\n')
    import os

    os.utime(jsonl, (stamp, stamp))
    assert read(jsonl) == [{"question": "x", "answer": "y"}]


def test_texts_are_never_taken_for_dates_or_numbers(tmp_path):
    file = write(tmp_path, "a.jsonl", '{"text": "2020-01-01"}\n{"text": "2021-01-01"}\n')
    assert [row["text"] for row in read(file)] == ["2020-01-01", "2021-01-01"]
    file = write(tmp_path, "a.csv", 'text,empty\n007,\nNA,\n"a, ""b""\nc",\n')
    assert read(file) == [{"text": text, "empty": ""} for text in ("007", "NA", 'a, "b"\nc')]


def test_rows_may_lack_columns_and_hold_lists(tmp_path):
    lines = [
        '{"m": [{"role": "user", "content": "a"}]}',
        '{"m": [{"role": "user", "content": "b", "name": "c"}]}',
        '{"k": 1}',
    ]
    file = write(tmp_path, "a.jsonl", "\n".join(lines))
    rows = read(file)
    assert rows[0] == {"m": [{"role": "user", "content": "a", "name": None}], "k": None}
    assert rows[2] == {"m": None, "k": 1}


def test_many_rows_are_joined_across_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr("ftk_plugins.datasets.files.readers._ROWS_AT_A_TIME", 2)
    file = write(tmp_path, "a.jsonl", '{"a": 1}\n{"a": 2}\n{"a": 2.5}\n{"a": null}\n{"b": "x"}')
    assert [row["a"] for row in read(file)] == [1, 2, 2.5, None, None]
    file = write(tmp_path, "b.jsonl", '{"a": 1}\n{"a": 2}\n{"a": "x"}')
    with pytest.raises(UserError, match=r"b.jsonl: rows do not fit together.*a"):
        read(file)


def test_text_rows_are_lines_paragraphs_or_files(tmp_path):
    file = write(tmp_path, "a.txt", "one\ntwo\n\n \nthree\n")
    assert read(file) == [{"text": "one"}, {"text": "two"}, {"text": "three"}]
    assert read(file, text_rows="paragraph") == [{"text": "one\ntwo"}, {"text": "three"}]
    assert read(file, text_rows="file") == [{"text": "one\ntwo\n\n \nthree\n"}]


def test_encoding_delimiter_and_field(tmp_path):
    file = write(tmp_path, "a.txt", "东京", "gb18030")
    assert read(file, encoding="gb18030") == [{"text": "东京"}]
    with pytest.raises(UserError, match=r"a.txt is not utf-8 text"):
        read(file)
    for none in ("utf-99", "base64", "undefined"):
        with pytest.raises(ValidationError, match="no encoding is called"):
            FilesOptions(path="a", encoding=none)

    assert read(write(tmp_path, "a.csv", "a;b\n1;2\n"), delimiter=";") == [{"a": "1", "b": "2"}]
    file = write(tmp_path, "a.json", json.dumps({"version": 1, "rows": ROWS}))
    assert read(file, field="rows") == ROWS
    with pytest.raises(UserError, match=r"holds an object.*\n.*`field`.*'version', 'rows'"):
        read(file)
    with pytest.raises(UserError, match="no key `data`"):
        read(file, field="data")


def test_names_that_no_file_can_have_and_links_that_lead_nowhere(tmp_path):
    (tmp_path / "loop.jsonl").symlink_to(tmp_path / "loop.jsonl")
    with pytest.raises(UserError, match=r"loop.jsonl is no file that could be read\n  it is a link"):
        read(tmp_path / "loop.jsonl")
    with pytest.raises(UserError, match="cannot be looked for: File name too long"):
        read(tmp_path / ("a" * 5000))


def test_an_option_of_another_format_is_refused(jsonl):
    for option in ({"delimiter": ";"}, {"field": "rows"}, {"text_rows": "line"}):
        with pytest.raises(UserError, match=f"`{next(iter(option))}` is for"):
            read(jsonl, **option)


def test_columns_are_renamed_even_where_names_change_places(jsonl):
    renamed = read(jsonl, columns={"instruction": "question", "output": "answer"})
    assert renamed == [{"instruction": row["question"], "output": row["answer"]} for row in ROWS]
    swapped = read(jsonl, columns={"question": "answer", "answer": "question"})
    assert swapped[3] == {"question": "6", "answer": "What is 3 + 3?"}
    assert read(jsonl, columns={"question": "answer"})[3] == {"question": "6"}
    with pytest.raises(UserError, match=r"has no column `reply`.*\n.*valid here: answer, question"):
        read(jsonl, columns={"output": "reply"})
    with pytest.raises(ValidationError, match="two names"):
        FilesOptions(path="a", columns={"a": "c", "b": "c"})


def test_limit_takes_the_first_rows(jsonl):
    assert read(jsonl, limit=3) == ROWS[:3]
    assert read(jsonl, limit=30) == ROWS


def test_fractions_part_the_rows_by_seed(jsonl):
    options = {"validation_fraction": 0.2, "test_fraction": 0.1}
    source = Files(FilesOptions(path=str(jsonl), **options))
    assert source.splits() == ("train", "validation", "test")
    parts = {split: list(source.rows(split)) for split in source.splits()}
    assert {split: len(rows) for split, rows in parts.items()} == {"train": 14, "validation": 4, "test": 2}
    assert sorted([row for rows in parts.values() for row in rows], key=ROWS.index) == ROWS
    assert all(sorted(rows, key=ROWS.index) == rows for rows in parts.values())
    assert all(read(jsonl, split, **options) == rows for split, rows in parts.items())
    assert read(jsonl, "validation", **options, seed=1) != parts["validation"]


def test_a_source_without_fractions_gives_all_rows_for_each_role(jsonl):
    assert Files(FilesOptions(path=str(jsonl))).splits() == ()
    assert read(jsonl, "test") == ROWS
    with pytest.raises(UserError, match="sets no rows aside for test"):
        read(jsonl, "test", validation_fraction=0.2)


def test_small_files_keep_a_row_for_each_split(jsonl):
    assert len(read(jsonl, "test", limit=3, test_fraction=0.01)) == 1
    with pytest.raises(UserError, match="1 rows, too few"):
        read(jsonl, limit=1, test_fraction=0.5)
    with pytest.raises(ValidationError, match="nothing to train on"):
        FilesOptions(path="a", validation_fraction=0.5, test_fraction=0.5)


def test_rows_that_are_appended_move_few_others(jsonl):
    before = read(jsonl, "test", test_fraction=0.25)
    with jsonl.open("a") as file:
        file.write('{"question": "last", "answer": "x"}\n')
    after = read(jsonl, "test", test_fraction=0.25)
    assert len([row for row in before if row in after]) >= len(before) - 1


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.jsonl", '{"a": 1}\n\n{"a": 2\n', "a.jsonl, line 3: no valid JSON"),
        ("a.jsonl", '{"a": 1}\n[2]\n', "a.jsonl, line 2 holds a list"),
        ("a.jsonl", '{"a": 1}\n{"a": "x"}\n', "line 2: column `a` holds text, and a number before"),
        ("a.jsonl", '{"a": 1e2}\n{"a": {"b": 1}}\n', "line 2: column `a` holds an object"),
        ("a.jsonl", '{"a": "b"}\n{"a": "\\ud800"}\n', r"a.jsonl, line 2: \\ud800 is half of a character"),
        ("a.jsonl", '{"\\uD800": 1}\n', r"a.jsonl, line 1: \\ud800 is half of a character"),
        ("a.jsonl", f'{{"a": {"9" * 5000}}}\n', "a.jsonl, line 1: Exceeds the limit"),
        ("a.jsonl", f'{{"a": {"[" * 100_000}', "a.jsonl, line 1: lists or objects are nested too deeply"),
        ("a.json", "[" * 100_000, "a.json: lists or objects are nested too deeply"),
        ("a.jsonl", "", "a.jsonl is empty"),
        ("a.json", '[{"a": 1},\n {"a": }]', "a.json, line 2: no valid JSON"),
        ("a.json", '{"a": 1}\n{"a": }', "a.json, line 2: no valid JSON"),
        ("a.json", '[{"a": 1}, 2]', "a.json, row 2 holds a number"),
        ("a.json", "[]", "a.json is empty"),
        ("a.json", " ", "a.json is empty"),
        ("a.csv", "a,b\n1,2\n1,2,3\n", "a.csv, line 3 has 3 cells, the header 2"),
        ("a.csv", 'a,b\n1,"2\n', "a.csv, line 2: no valid CSV"),
        ("a.csv", "a,a\n1,2\n", "empty name, or one twice"),
        ("a.csv", "a,b\n", "a.csv is empty"),
        ("a.csv", "", "a.csv is empty"),
        ("a.txt", "\n \n", "a.txt is empty"),
        ("a.parquet", "PAR?", "no readable Parquet file"),
        ("a.jsonl.gz", "{}", "a.jsonl.gz cannot be read"),
    ],
)
def test_a_wrong_file_is_named_with_its_line(tmp_path, name, text, words):
    with pytest.raises(UserError, match=words):
        read(write(tmp_path, name, text))


def test_files_that_do_not_fit_together_are_named(tmp_path):
    write(tmp_path, "a.jsonl", '{"a": 1}')
    write(tmp_path, "b.jsonl", '{"a": "x"}')
    with pytest.raises(UserError, match=r"\*.jsonl do not fit together"):
        read(tmp_path / "*.jsonl")


def test_a_missing_file_is_named_with_its_neighbour(jsonl, tmp_path):
    with pytest.raises(UserError, match=r"no file .*sum.jsonl\n.*did you mean `sums.jsonl`"):
        read(tmp_path / "sum.jsonl")
    with pytest.raises(UserError, match="the current folder is"):
        read("nowhere/sum.jsonl")
    with pytest.raises(UserError, match="no file matches"):
        read(tmp_path / "*.csv")
    with pytest.raises(UserError, match=r"is a folder\n.*\*.jsonl"):
        read(tmp_path)
    for path in ("", [], ["a", ""]):
        with pytest.raises(ValidationError):
            FilesOptions(path=path)
