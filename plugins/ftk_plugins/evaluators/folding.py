"""Comparing texts: which differences count, and where a keyword stands on its own."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

_UNSPACED_SCRIPTS = (
    "CJK", "HIRAGANA", "KATAKANA", "HALFWIDTH KATAKANA", "BOPOMOFO", "HANGUL", "HALFWIDTH HANGUL", "THAI",
    "LAO", "KHMER", "MYANMAR", "TIBETAN",
)  # fmt: skip
"""How the names of characters begin whose words follow each other, or take their endings, without a space."""


def fold(text: str, *, case: bool, width: bool) -> str:
    """``text`` without surrounding space, and without the differences that shall not count.

    Args:
        text: any text.
        case: fold upper and lower case (Unicode case folding: also ``ß`` and ``ss``).
        width: fold the forms of one character: full and half width, ligatures, composed and decomposed
            (NFKC).
    """
    if width:
        text = unicodedata.normalize("NFKC", text)
    if case:
        text = text.casefold()
    return text.strip()


def occurs(keyword: str, text: str, *, boundary: bool) -> bool:
    """Whether ``keyword`` stands in ``text``; both folded by the caller.

    Args:
        keyword: at least one character.
        text: where it is looked for.
        boundary: where the keyword begins or ends with a letter or digit, no letter or digit may go on there:
            ``7`` does not stand in ``17`` nor in ``7.5``, ``H`` not in ``Helium``. Scripts that write words
            without spaces between them (Chinese, Japanese, Thai and their like; Korean for its particles)
            have no such bounds.
    """
    place = text.find(keyword)
    while place >= 0:
        end = place + len(keyword)
        before, after = text[max(0, place - 2) : place][::-1], text[end : end + 2]
        if not boundary or not (_goes_on(before, keyword[0]) or _goes_on(after, keyword[-1])):
            return True
        place = text.find(keyword, place + 1)
    return False


def _goes_on(beyond: str, edge: str) -> bool:
    """Whether the word or number that ends in ``edge`` goes on in ``beyond``, read away from it."""
    if not beyond or not _in_spaced_word(edge):
        return False
    if edge.isdigit() and beyond[0] in ".,":
        return beyond[1:2].isdigit()
    return _in_spaced_word(beyond[0])


@lru_cache(maxsize=4096)
def _in_spaced_word(character: str) -> bool:
    """Whether it is a letter, digit or combining mark of a script that puts spaces between words."""
    return unicodedata.category(character)[0] in "LNM" and not unicodedata.name(character, "").startswith(
        _UNSPACED_SCRIPTS
    )
