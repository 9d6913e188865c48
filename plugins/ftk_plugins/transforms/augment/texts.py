"""Texts with some words deleted, swapped or replaced: Easy Data Augmentation (Wei and Zou 2019, section 2)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random

from ftk import UserError
from ftk_plugins.transforms.augment.options import AugmentOptions
from ftk_plugins.transforms.words import word_spans

Pieces = tuple[list[str], list[str]]
"""The words of a text, and what stands before each, after the last too."""

Operation = Callable[[list[str], list[str], Random], Pieces | None]
"""Changes words and what stands between them; None where it finds nothing to change."""


def operations(options: AugmentOptions) -> list[Operation]:
    """What the options ask for; a copy goes through one of them."""
    made: list[Operation] = []
    if options.synonyms is not None:
        made.append(_replacing(_table(options.synonyms), options.replacement))
    if options.swap:
        made.append(_swapping(options.swap))
    if options.deletion:
        made.append(_deleting(options.deletion))
    return made


def changed(text: str, operation: Operation, draw: Random) -> str | None:
    """The text after an operation; None where that leaves it as it is."""
    spans = word_spans(text)
    words = [text[start:end] for start, end in spans]
    edges = [0, *(edge for span in spans for edge in span), len(text)]
    between = [text[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True)]
    found = operation(words, between, draw)
    if found is None:
        return None
    words, between = found
    after = "".join(piece for pair in zip(between, [*words, ""], strict=True) for piece in pair)
    return after if after != text else None


def _deleting(chance: float) -> Operation:
    """Each word goes by chance, with what stands before it; one stays at least."""

    def delete(words: list[str], between: list[str], draw: Random) -> Pieces | None:
        if len(words) < 2:
            return None
        stays = [draw.random() >= chance for _ in words]
        if all(stays):
            stays[draw.randrange(len(words))] = False
        if not any(stays):
            stays[draw.randrange(len(words))] = True
        kept = [number for number, stay in enumerate(stays) if stay]
        return [words[n] for n in kept], [between[0], *(between[n] for n in kept[1:]), between[-1]]

    return delete


def _swapping(share: float) -> Operation:
    """Two words change places, as often as ``share`` of the words; once at least."""

    def swap(words: list[str], between: list[str], draw: Random) -> Pieces | None:
        if len(set(words)) < 2:
            return None
        words = list(words)
        for _ in range(max(1, round(share * len(words)))):
            one, other = draw.sample(range(len(words)), 2)
            words[one], words[other] = words[other], words[one]
        return words, between

    return swap


def _replacing(table: Mapping[str, list[str]], share: float) -> Operation:
    """Words of the table become one of their synonyms, ``share`` of all words; one at least."""

    def replace(words: list[str], between: list[str], draw: Random) -> Pieces | None:
        known = [number for number, word in enumerate(words) if _core(word)[1].casefold() in table]
        if not known:
            return None
        words = list(words)
        for number in draw.sample(known, min(len(known), max(1, round(share * len(words))))):
            before, core, after = _core(words[number])
            synonym = draw.choice(table[core.casefold()])
            words[number] = before + (synonym[:1].upper() + synonym[1:] if core[:1].isupper() else synonym) + after
        return words, between

    return replace


def _core(word: str) -> tuple[str, str, str]:
    """A word without the punctuation at its ends, between these."""
    start, end = 0, len(word)
    while start < end and not word[start].isalnum():
        start += 1
    while end > start and not word[end - 1].isalnum():
        end -= 1
    return word[:start], word[start:end], word[end:]


def _table(synonyms: Mapping[str, list[str]] | str) -> dict[str, list[str]]:
    """The table by words without capitals.

    Raises:
        UserError: a file cannot be read, or holds no such table.
    """
    table: object = synonyms
    if isinstance(synonyms, str):
        try:
            table = json.loads(Path(synonyms).expanduser().read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError(f"`synonyms`: {synonyms} cannot be read: {error.strerror}", "name a JSON file") from None
        except ValueError as error:
            raise UserError(f"`synonyms`: {synonyms} is no JSON: {error}", "mend the file") from None
    good = isinstance(table, Mapping) and all(
        isinstance(words, list) and all(isinstance(word, str) and word for word in words) for words in table.values()
    )
    if not good or not isinstance(table, Mapping) or not any(table.values()):
        raise UserError(
            f"`synonyms`: {synonyms if isinstance(synonyms, str) else 'the table'} must give each word a list of texts",
            'write { "film": ["movie", "picture"] }',
        )
    return {str(word).casefold(): words for word, words in table.items() if words}
