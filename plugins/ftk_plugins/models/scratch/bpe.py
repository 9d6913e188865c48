"""Training a byte-level BPE tokenizer whose tokens never cut a character of the corpus in two."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from itertools import groupby
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from ftk import UserError

logger = logging.getLogger("ftk.models")

PAD, END, UNKNOWN, MASK, START = "<|pad|>", "<|end|>", "<|unknown|>", "<|mask|>", "<|start|>"
SENTINEL = "<extra_id_{}>"

LONGEST_HAN = 4
"""Han characters in a token at most: a Chinese word has one to four, and no space ends it."""

WORDS = Regex(
    r"'(?:[sdmt]|ll|ve|re)"
    r"|\p{Han}+|[\p{Hiragana}\p{Katakana}ー]+"
    r"| ?[\p{L}\p{M}&&[^\p{Han}\p{Hiragana}\p{Katakana}]]+"
    r"| ?\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+"
    r"|\s+(?!\S)|\s+"
)
"""What a token never crosses: GPT-2's words, three digits, a change of Han, kana and other letters."""

_BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def train_tokenizer(
    corpus: Callable[[], Iterable[str]],
    *,
    vocabulary_size: int,
    max_length: int,
    mask: bool = False,
    frame: bool = False,
    sentinels: int = 0,
    special_tokens: Sequence[str] = (),
) -> Any:
    """Train a tokenizer; the special tokens have the lowest ids, ``<|pad|>`` is 0 and ``<|end|>`` is 1.

    Byte-level BPE merges bytes by frequency alone; where characters have several bytes this gives tokens with
    the end of one character and the start of the next. Here BPE is trained on characters, and each character
    is then spelt in bytes by merges that come first. The result is a usual byte-level tokenizer: it writes
    any text, also with characters that the corpus does not have.

    Args:
        corpus: gives the texts; called twice, never held as a whole.
        vocabulary_size: most tokens, at least 256 and the special ones; a small corpus gives fewer.
        max_length: the model's longest sequence in tokens.
        mask: whether it has a mask token, and puts ``<|start|>`` before a text and ``<|end|>`` after it, as BERT does.
        frame: whether it puts these two around a text without having a mask token, as CLIP does.
        sentinels: how many tokens it has that stand for a span, from ``<extra_id_0>``; with any it puts ``<|end|>``
            after a text, as T5 does.
        special_tokens: further tokens that are never split.

    Raises:
        UserError: the corpus has no text, or ``vocabulary_size`` has no room for the special tokens.
    """
    starts = mask or frame
    own = [*([MASK] if mask else []), *([START] if starts else []), *map(SENTINEL.format, range(sentinels))]
    special = list(dict.fromkeys([PAD, END, UNKNOWN, *own, *special_tokens]))
    room = vocabulary_size - len(special) - 256
    if room < 0:
        raise UserError(
            f"model.vocabulary_size: {vocabulary_size} is no room for 256 bytes and {len(special)} special tokens",
            f"set it to {256 + len(special)} at least, better to several thousand",
        )
    characters, spelling = _alphabet(corpus(), room // 2)
    merges = [*spelling, *_merges(corpus(), characters, room - len(spelling))]
    tokens = dict.fromkeys([*special, *sorted(_BYTES.alphabet()), *(left + right for left, right in merges)])
    if len(tokens) < vocabulary_size:
        logger.info("the corpus gives %d tokens, fewer than vocabulary_size = %d", len(tokens), vocabulary_size)
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=merges, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(WORDS, behavior="isolated"), _BYTES])
    tokenizer.decoder = decoders.ByteLevel()
    if own:
        tokenizer.post_processor = _around(START if starts else "", vocabulary)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        **({"bos_token": START} if starts else {}),
        **({"cls_token": START, "sep_token": END, "mask_token": MASK} if mask else {}),
        extra_special_tokens=list(dict.fromkeys([*map(SENTINEL.format, range(sentinels)), *special_tokens])),
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )


def _around(start: str, vocabulary: Mapping[str, int]) -> Any:
    """Puts ``start`` before a text or a pair of texts, and the end token after each; the second is of type 1."""
    single, pair = f"{start} $A {END}".strip(), f"{start} $A {END} $B:1 {END}:1".strip()
    ids = [(token, vocabulary[token]) for token in (start, END) if token]
    return processors.TemplateProcessing(single=single, pair=pair, special_tokens=ids)


def _alphabet(texts: Iterable[str], room: int) -> tuple[set[str], list[tuple[str, str]]]:
    """The characters to train on, frequent ones first while ``room`` lasts, and the merges spelling them."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    if not "".join(counts).strip():
        raise UserError(
            "model.tokenizer: the training rows hold no text to train a tokenizer on",
            'give training data, or name a tokenizer: `tokenizer = "…"` in [model]',
        )
    characters: set[str] = set()
    spelling: dict[tuple[str, str], None] = {}
    for character in sorted(counts, key=lambda one: (-counts[one], one)):
        spelt = _spelt(character)
        steps = [(spelt[:length], spelt[length]) for length in range(1, len(spelt))]
        new = [step for step in steps if step not in spelling]
        if len(spelling) + len(new) <= room:
            characters.add(character)
            spelling.update(dict.fromkeys(new))
    return characters, list(spelling)


def _merges(texts: Iterable[str], characters: Set[str], count: int) -> list[tuple[str, str]]:
    """The first ``count`` merges of characters, in bytes."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Split(WORDS, behavior="isolated")
    # Twice as many as needed, since those that make too long a token are left out; the start of a list of
    # merges is the list of a smaller vocabulary.
    trainer = BpeTrainer(
        vocab_size=len(characters) + 2 * count,
        initial_alphabet=sorted(characters),
        limit_alphabet=len(characters),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_known(texts, characters), trainer)
    merges = [(left, right) for left, right in json.loads(tokenizer.to_str())["model"]["merges"]]
    short = [merge for merge in merges if sum(map(_is_han, "".join(merge))) <= LONGEST_HAN]
    return [(_spelt(left), _spelt(right)) for left, right in short[:count]]


def _known(texts: Iterable[str], characters: Set[str]) -> Iterator[str]:
    """The texts, cut where they have a character outside of ``characters``."""
    for text in texts:
        if characters >= set(text):
            yield text
        else:
            yield from ("".join(group) for known, group in groupby(text, characters.__contains__) if known)


def _spelt(text: str) -> str:
    """The bytes of ``text``, each as the printable character that byte-level vocabularies write for it."""
    return "".join(piece for piece, _ in _BYTES.pre_tokenize_str(text))


def _is_han(character: str) -> bool:
    return (
        "\u3400" <= character <= "\u9fff"
        or "\uf900" <= character <= "\ufaff"
        or "\U00020000" <= character <= "\U0003ffff"
    )
