"""Words: what counts as one, and hashes of runs of them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import regex

_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}ー"
"""Scripts that put no space between words: each of their characters counts as a word."""

_WORD = regex.compile(rf"[{_UNSPACED}]|[^\s\x1c-\x1f{_UNSPACED}]+")
"""A word with the punctuation that stands at it."""

_PLAIN = regex.compile(rf"[{_UNSPACED}]|[\w--[{_UNSPACED}]]+", regex.V1)
"""A word without it."""

_ASCII_WORD, _ASCII_PLAIN = re.compile(r"\S+"), re.compile(r"\w+")
"""The same for texts of ASCII alone, some times as fast."""

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def word_spans(text: str) -> list[tuple[int, int]]:
    """Where each word begins and ends, with the punctuation that stands at it."""
    pattern = _ASCII_WORD if text.isascii() else _WORD
    return [found.span() for found in pattern.finditer(text)]


def words_of(text: str) -> list[str]:
    """The words as they are written, with their punctuation."""
    return text.split() if text.isascii() else list(_WORD.findall(text))


def plain_words(text: str) -> list[str]:
    """The words without capitals and punctuation, for comparing."""
    text = text.casefold()
    return (_ASCII_PLAIN if text.isascii() else _PLAIN).findall(text)


def runs(words: Sequence[str], size: int) -> np.ndarray:
    """A number for each run of ``size`` words, ``(len(words) - size + 1,) uint64``, empty where there are fewer words.

    Equal runs have equal numbers, in every process; two that differ have equal ones with probability 2⁻⁶⁴.
    """
    count = len(words) - size + 1
    if count < 1:
        return np.zeros(0, np.uint64)
    hashed = np.fromiter(map(_hashed, words), np.uint64, len(words))
    numbers = np.zeros(count, np.uint64)
    for place in range(size):
        numbers = numbers * _MULTIPLIER + hashed[place : place + count]
    return numbers


@lru_cache(maxsize=2**18)
def _hashed(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
