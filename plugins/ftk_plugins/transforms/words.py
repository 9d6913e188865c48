"""Words: what counts as one, and hashes of runs of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import regex

_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}ー"
"""Scripts that put no space between words: each of their characters counts as a word."""

WORD = regex.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")
"""A word with the punctuation that stands at it."""

_PLAIN = regex.compile(rf"[{_UNSPACED}]|[\w--[{_UNSPACED}]]+", regex.V1)
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def words_of(text: str) -> list[str]:
    """The words as they are written, with their punctuation."""
    return text.split() if text.isascii() else WORD.findall(text)


def plain_words(text: str) -> list[str]:
    """The words without capitals and punctuation, for comparing."""
    return list(_PLAIN.findall(text.casefold()))


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
