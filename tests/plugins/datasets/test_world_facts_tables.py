"""Holds the tables of `world_facts` to their standards: whole, unique, right where checked."""

from __future__ import annotations

import string
from importlib.resources import files
from typing import Any

import pytest

from ftk_plugins.datasets.world_facts.facts import LANGUAGES, all_subjects, find_subject

PACKAGE = files("ftk_plugins.datasets.world_facts")


@pytest.mark.parametrize(("table", "length"), [("countries.csv", 193), ("currencies.csv", 142), ("elements.csv", 118)])
def test_tables_are_whole_and_name_their_source(table: str, length: int) -> None:
    lines = PACKAGE.joinpath(table).read_text(encoding="utf-8").splitlines()
    notes = [line for line in lines if line.startswith("#")]
    header, *body = [line.split(",") for line in lines if not line.startswith("#")]
    assert lines[: len(notes)] == notes
    assert any(standard in " ".join(notes) for standard in ("ISO 3166-1", "ISO 4217", "IUPAC"))
    assert len(body) == length
    for cells in body:
        assert len(cells) == len(header)
        assert all(cell == cell.strip() for cell in cells)
        empty = {name for name, cell in zip(header, cells, strict=True) if not cell}
        assert empty == ({"capital_en", "capital_zh"} if cells[0] == "IL" else set())


def test_codes_and_names_are_unique_and_well_formed() -> None:
    countries, elements = all_subjects("country"), all_subjects("element")
    alpha_3 = [country.answers["iso_code_3"]["en"] for country in countries]
    currencies = {(c.answers["currency_code"]["en"], *c.answers["currency"].values()) for c in countries}
    for codes, length in ((alpha_3, 3), ([c.code for c in countries], 2), ([c[0] for c in currencies], 3)):
        assert len(set(codes)) == len(codes)
        assert all(len(code) == length and set(code) <= set(string.ascii_uppercase) for code in codes)
    assert len(currencies) == 142  # every currency of the table is some country's, and its two names are its own
    assert len({en for _, en, _ in currencies}) == len({zh for _, _, zh in currencies}) == 142
    assert len({element.code for element in elements}) == 118
    assert [element.answers["number"]["en"] for element in elements] == [str(n) for n in range(1, 119)]
    for language in LANGUAGES:
        titles = [subject.title(language) for subject in (*countries, *elements)]
        assert len(set(titles)) == 193 + 118
    assert [c.code for c in countries] == sorted(c.code for c in countries)


def test_each_language_is_written_in_its_script() -> None:
    for subject in (*all_subjects("country"), *all_subjects("element")):
        names = [
            subject.names,
            *(subject.answers[r] for r in ("capital", "currency") if r in subject.answers),
        ]
        for name in names:
            assert all(ord(character) < 0x250 for character in name["en"]), name
            assert all(ord(character) >= 0x3400 for character in name["zh"]), name


@pytest.mark.parametrize(
    ("code", "relation", "english", "chinese"),
    [
        ("FR", "capital", "Paris", "巴黎"),
        ("CN", "capital", "Beijing", "北京"),
        ("AU", "capital", "Canberra", "堪培拉"),
        ("BR", "capital", "Brasilia", "巴西利亚"),
        ("TR", "capital", "Ankara", "安卡拉"),
        ("KZ", "capital", "Astana", "阿斯塔纳"),
        ("TZ", "capital", "Dodoma", "多多马"),
        ("NG", "capital", "Abuja", "阿布贾"),
        ("CI", "capital", "Yamoussoukro", "亚穆苏克罗"),
        ("NL", "capital", "Amsterdam", "阿姆斯特丹"),
        ("JP", "currency", "Japanese yen", "日元"),
        ("HR", "currency", "euro", "欧元"),
        ("BG", "currency", "euro", "欧元"),
        ("SV", "currency", "US dollar", "美元"),
        ("SN", "currency", "West African CFA franc", "西非法郎"),
        ("LI", "currency_code", "CHF", "CHF"),
        ("SL", "currency_code", "SLE", "SLE"),
        ("ZW", "currency_code", "ZWG", "ZWG"),
        ("CH", "iso_code", "CH", "CH"),
        ("DE", "iso_code_3", "DEU", "DEU"),
        ("AE", "iso_code_3", "ARE", "ARE"),
        ("Fe", "number", "26", "26"),
        ("Au", "number", "79", "79"),
        ("Og", "number", "118", "118"),
        ("W", "symbol", "W", "W"),
        ("Na", "number", "11", "11"),
    ],
)
def test_known_facts(code: str, relation: Any, english: str, chinese: str) -> None:
    subject = find_subject(code)
    assert subject is not None
    assert subject.code == code
    assert subject.answers[relation] == {"en": english, "zh": chinese}


@pytest.mark.parametrize(
    ("symbol", "english", "chinese"),
    [("H", "hydrogen", "氢"), ("Na", "sodium", "钠"), ("Al", "aluminium", "铝"), ("S", "sulfur", "硫"),
     ("Fe", "iron", "铁"), ("Cs", "caesium", "铯"), ("W", "tungsten", "钨"), ("Hg", "mercury", "汞"),
     ("Rf", "rutherfordium", "\U0002cb3b"), ("Nh", "nihonium", "\u9fed"), ("Og", "oganesson", "\u9feb")],
)  # fmt: skip
def test_known_elements(symbol: str, english: str, chinese: str) -> None:
    assert {subject.code: subject.names for subject in all_subjects("element")}[symbol] == {
        "en": english,
        "zh": chinese,
    }
