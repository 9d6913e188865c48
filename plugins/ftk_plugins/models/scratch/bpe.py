"""Training a byte-level BPE tokenizer that writes every script and gives the same tokens for the same texts."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ftk import UserError
from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

logger = logging.getLogger("ftk.models")

PAD, END, UNKNOWN, MASK = "<|pad|>", "<|end|>", "<|unknown|>", "<|mask|>"

MAX_TOKEN_BYTES = 24
"""Longest token in bytes: 8 Han characters, so that no whole sentence of a script without spaces becomes one token."""

WORDS = Regex(
    r"'(?:[sdmt]|ll|ve|re)"
    r"|\p{Han}+|[\p{Hiragana}\p{Katakana}ー]+"
    r"| ?[\p{L}\p{M}&&[^\p{Han}\p{Hiragana}\p{Katakana}]]+"
    r"| ?\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+"
    r"|\s+(?!\S)|\s+"
)
"""What a token never crosses: GPT-2's words, digits in groups of three, and a change between Han, kana and other letters."""


def train_tokenizer(
    texts: Iterable[str], *, vocabulary_size: int, max_length: int, mask: bool, special_tokens: Sequence[str] = ()
) -> Any:
    """Train a tokenizer; the special tokens have the lowest ids, ``<|pad|>`` is 0 and ``<|end|>`` is 1.

    Args:
        texts: the corpus; read once, never held as a whole.
        vocabulary_size: most tokens it may have; a small corpus gives fewer.
        max_length: the model's longest sequence in tokens.
        mask: whether it has a mask token.
        special_tokens: further tokens that are never split.

    Raises:
        UserError: the corpus has no text.
    """
    special = list(dict.fromkeys([PAD, END, UNKNOWN, *([MASK] if mask else []), *special_tokens]))
    tokenizer = Tokenizer(BPE(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(WORDS, behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        max_token_length=MAX_TOKEN_BYTES,
        show_progress=False,
    )
    tokenizer.train_from_iterator(_some(texts), trainer)
    found = tokenizer.get_vocab_size()
    if found < vocabulary_size:
        logger.info("the corpus gives %d tokens, fewer than vocabulary_size = %d", found, vocabulary_size)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        mask_token=MASK if mask else None,
        extra_special_tokens=list(special_tokens),
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )


def _some(texts: Iterable[str]) -> Iterator[str]:
    """The texts that are not blank; at least one."""
    empty = True
    for text in texts:
        if text.strip():
            empty = False
            yield text
    if empty:
        raise UserError(
            "model.tokenizer: the training rows hold no text to train a tokenizer on",
            'give training data, or name a tokenizer: `tokenizer = "…"` in [model]',
        )
