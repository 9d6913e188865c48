"""The facts: countries and chemical elements, read from the tables beside this file when first asked for."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal, get_args

Kind = Literal["country", "element"]
Language = Literal["en", "zh"]
Relation = Literal["capital", "currency", "currency_code", "iso_code", "iso_code_3", "symbol", "number"]

LANGUAGES: tuple[Language, ...] = get_args(Language)
RELATIONS: tuple[Relation, ...] = get_args(Relation)

KIND_OF: Mapping[Relation, Kind] = {
    "capital": "country",
    "currency": "country",
    "currency_code": "country",
    "iso_code": "country",
    "iso_code_3": "country",
    "symbol": "element",
    "number": "element",
}
"""What each relation is said of."""

PLURAL: Mapping[Kind, str] = {"country": "countries", "element": "elements"}

SOURCE_OF: Mapping[Relation, str] = {
    "capital": "constitutional or official seat; names after Unicode CLDR",
    "currency": "ISO 4217; names after Unicode CLDR",
    "currency_code": "ISO 4217",
    "iso_code": "ISO 3166-1 alpha-2",
    "iso_code_3": "ISO 3166-1 alpha-3",
    "symbol": "IUPAC",
    "number": "IUPAC",
}
"""Where the answers of each relation come from."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A country or an element with everything that is known of it.

    Attributes:
        kind: which of the two.
        code: what identifies it in any language: the ISO 3166-1 alpha-2 code, or the element's symbol.
        names: language to the name in running text, an English article included (``the Netherlands``).
        answers: relation to language to the bare answer; a relation without an undisputed answer is absent.
    """

    kind: Kind
    code: str
    names: Mapping[Language, str]
    answers: Mapping[Relation, Mapping[Language, str]]

    def title(self, language: Language) -> str:
        """The name on its own, without an article."""
        return self.names[language].removeprefix("the ")


@cache
def all_subjects(kind: Kind) -> tuple[Subject, ...]:
    """All countries by alpha-2 code, or all elements by atomic number."""
    return _countries() if kind == "country" else _elements()


def find_subject(text: str) -> Subject | None:
    """The subject of this name (either language, any case) or code (``FR`` France, ``Fr`` francium)."""
    codes, names = _index()
    return codes.get(text) or names.get(text.casefold().removeprefix("the "))


@cache
def _index() -> tuple[dict[str, Subject], dict[str, Subject]]:
    everything = (*all_subjects("country"), *all_subjects("element"))
    codes = {subject.code: subject for subject in everything}
    codes |= {subject.answers["iso_code_3"]["en"]: subject for subject in all_subjects("country")}
    names = {subject.title(language).casefold(): subject for subject in everything for language in LANGUAGES}
    return codes, names


def _countries() -> tuple[Subject, ...]:
    currencies = {row["code"]: _names(row) for row in _table("currencies.csv")}
    found = []
    for row in _table("countries.csv"):
        answers: dict[Relation, Mapping[Language, str]] = {
            "currency": currencies[row["currency"]],
            "currency_code": _same(row["currency"]),
            "iso_code": _same(row["alpha_2"]),
            "iso_code_3": _same(row["alpha_3"]),
        }
        if row["capital_en"]:
            answers["capital"] = _names(row, "capital")
        found.append(Subject("country", row["alpha_2"], _names(row), answers))
    return tuple(found)


def _elements() -> tuple[Subject, ...]:
    return tuple(
        Subject(
            "element",
            row["symbol"],
            _names(row),
            {"symbol": _same(row["symbol"]), "number": _same(row["number"])},
        )
        for row in _table("elements.csv")
    )


def _names(row: Mapping[str, str], column: str = "name") -> Mapping[Language, str]:
    return {language: row[f"{column}_{language}"] for language in LANGUAGES}


def _same(answer: str) -> Mapping[Language, str]:
    return dict.fromkeys(LANGUAGES, answer)


def _table(name: str) -> list[dict[str, str]]:
    lines = files(__package__).joinpath(name).read_text(encoding="utf-8").splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))
