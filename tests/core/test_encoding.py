"""Encoding for a run: once per content, told as it goes on, with errors that name the row, and nothing half done."""

from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from ftk.data import pieces
from ftk.data.encoding import Encoder
from ftk.data.overlap import overlap
from ftk.data.roles import RoleRows
from ftk.data.rows import Rows
from ftk.errors import Interrupted, UserError
from ftk.events import Events
from ftk.parts import Examples
from ftk.testing import Subject, toy_rows, toy_tokenizer
from ftk_plugins.objectives.instruction.instruction import Instruction

SUBJECT = Subject("objective", "instruction", {"template": "{instruction} "})
TOKENIZER = toy_tokenizer()


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FTK_CACHE", str(tmp_path / "cache"))


def entries(tmp_path):
    return sorted(path.name for path in (tmp_path / "cache").iterdir())


def role(rows: Any, place: str = "data.train") -> RoleRows:
    return RoleRows(Dataset.from_list(list(rows)), place)


def encoded(found: RoleRows, subject: Subject = SUBJECT, processor: Any = TOKENIZER, **around: Any) -> Any:
    encoder = Encoder(around.get("events", Events([])), around.get("check_interrupt", lambda: None))
    return encoder.encoded(found, subject.spec, subject.build(), processor)


def test_rows_are_encoded_as_alone_and_once(tmp_path, monkeypatch):
    found = role(toy_rows(30))
    expected = Examples(found.rows, SUBJECT.build(), TOKENIZER, "toy").encoded
    for item, other in zip(encoded(found), expected, strict=True):
        assert item.keys() == other.keys()
        assert all((item[name] == other[name]).all() and item[name].dtype == np.int32 for name in item)
    assert len(entries(tmp_path)) == 1
    monkeypatch.setattr(Instruction, "encode_batch", None)  # whoever encodes again fails
    assert len(encoded(role(toy_rows(30)))) == 30


def test_other_rows_options_and_processors_are_encoded_anew(tmp_path):
    templated = toy_tokenizer()
    templated.add_tokens(["What is"])
    encoded(role(toy_rows(5)))
    encoded(role(toy_rows(6)))
    encoded(role(toy_rows(5)), Subject("objective", "instruction", {"template": "{instruction}: "}))
    encoded(role(toy_rows(5)), processor=templated)
    assert len(entries(tmp_path)) == 4


@pytest.mark.parametrize("workers", [1, 2])
def test_the_first_bad_row_is_named_and_nothing_is_kept(tmp_path, monkeypatch, workers):
    monkeypatch.setattr(pieces, "PAYS", 0.0)
    monkeypatch.setattr(pieces, "PIECE_ROWS", 10)
    monkeypatch.setattr(pieces, "worker_count", lambda: workers)
    rows = list(toy_rows(60))
    rows[33]["output"] = rows[57]["output"] = ""
    with pytest.raises(UserError, match=r"^data.train, row 34: the answer in column `output` is empty"):
        encoded(role(rows))
    assert entries(tmp_path) == []


def test_progress_moves_and_a_signal_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(pieces, "PIECE_ROWS", 10)
    told: list = []
    encoded(role(toy_rows(60)), events=Events([told.append]))
    assert [event.data["done"] for event in told][-1] == 60
    assert {(event.kind, event.data["total"]) for event in told} == {("phase", 60)}
    calls: list = []

    def check():
        calls.append(1)
        if len(calls) == 3:
            raise Interrupted("stop")

    before = entries(tmp_path)
    with pytest.raises(Interrupted):
        encoded(role(toy_rows(61)), check_interrupt=check)
    assert entries(tmp_path) == before


def test_rows_in_a_test_set_that_were_trained_on_are_found_whatever_their_capitals():
    objective = SUBJECT.build()
    rows = list(toy_rows(12))
    test = [*rows[3:5], *({**row, "instruction": f"Why  {row['output']}?"} for row in rows[8:12])]
    shouted = [{**rows[0], "instruction": " " + rows[0]["instruction"].upper()}, test[-1]]
    found = Rows(
        "toy", objective, SUBJECT.spec, {"train": role(rows), "test": role(test, "data.test")},
        {"shouted": role(shouted, "data.probes.shouted"), "apart": role(test[2:], "data.probes.apart")},
    )  # fmt: skip
    encoder = Encoder(Events([]), lambda: None)
    assert list(overlap(found, encoder)) == [("data.test", 2, 6), ("data.probes.shouted", 1, 2)]


def test_a_row_without_texts_is_named_before_anything_is_encoded():
    bad = [*toy_rows(3), {"instruction": None}]
    plain = Subject("objective", "instruction")
    found = Rows("toy", plain.build(), plain.spec, {"train": role(bad), "test": role(toy_rows(1), "data.test")})
    with pytest.raises(UserError, match=r"^data.train, row 4: found no instruction"):
        list(overlap(found, Encoder(Events([]), lambda: None)))
    with pytest.raises(UserError, match=r"^data.train, row 4: found no instruction"):
        list(found.texts())
