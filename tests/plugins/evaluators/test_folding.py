"""Which differences between texts count, and where a keyword stands on its own."""

from __future__ import annotations

import pytest

from ftk_plugins.evaluators.folding import fold, occurs


@pytest.mark.parametrize(
    ("text", "case", "width", "folded"),
    [
        (" Paris\n", False, False, "Paris"), ("Straße", True, False, "strasse"),
        ("ＡＢ１", False, True, "AB1"),
        ("ＡＢ１", True, True, "ab1"), ("ＡＢ１", False, False, "ＡＢ１"), ("ｶﾞ", False, True, "ガ"),
        ("e\u0301", False, True, "\u00e9"), ("\u3000東京\u3000", False, False, "東京"),
        ("a\u00a0b", False, True, "a b"),
    ],
)  # fmt: skip
def test_fold(text: str, case: bool, width: bool, folded: str) -> None:
    assert fold(text, case=case, width=width) == folded


@pytest.mark.parametrize(
    ("keyword", "text", "found"),
    [
        ("7", "17", False), ("7", "7", True), ("7", "It is 7.", True), ("7", "7.5", False),
        ("7", "1.7", False), ("7", "7,000", False), ("7", "6, 7, 8", True), ("7", "17 or 7", True),
        ("3.5", "13.5", False), ("3.5", "3.5%", True), ("H", "Helium", False), ("H", "(H)", True),
        ("H", "H2O", False), ("rain", "The train", False), ("rain", "rain.", True),
        ("C++", "C++20", True), ("C++", "in C++.", True), ("New York", "New Yorker", False),
        ("café", "cafés", False), ("cafe", "cafe\u0301", False), ("Москва", "Москва!", True),
        ("Москв", "Москва", False), ("東京", "東京都です", True), ("7", "7月です", True),
        ("7", "17月です", False), ("ไทย", "ประเทศไทย", True), ("서울", "서울은", True),
        ("Tシャツ", "白いTシャツ", True), ("Tシャツ", "ATシャツ", False), ("x", "", False),
        ("$5", "costs $5", True), ("$5", "costs $50", False), ("$5", "US$5", True),
    ],
)  # fmt: skip
def test_a_keyword_stands_on_its_own(keyword: str, text: str, found: bool) -> None:
    assert occurs(keyword, text, boundary=True) is found


def test_without_boundary_any_substring_counts() -> None:
    assert occurs("7", "17", boundary=False)
    assert not occurs("8", "17", boundary=False)
