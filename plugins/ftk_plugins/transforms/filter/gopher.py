"""The rules by which Gopher's training data was chosen (Rae et al. 2021, appendix A.1.1 and table A1)."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from ftk_plugins.transforms.filter.passage import Passage

STOP_WORDS = frozenset({"the", "be", "to", "of", "and", "that", "have", "with"})
BULLETS = ("•", "‣", "▪", "◦", "●", "*", "-")
ELLIPSES = ("…", "...")
_PUNCTUATION = "!\"'(),-.:;?[]“”‘’…"
_ELLIPSIS = re.compile(r"…|\.\.\.")

TOP_RUNS = {2: 0.20, 3: 0.18, 4: 0.16}
"""The largest share of characters within the most frequent run, by the words in a run."""
REPEATED_RUNS = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
"""The largest share of characters within runs that occur more than once, by the words in a run."""


def quality(passage: Passage) -> str | None:
    """Why a passage fails the quality rules; they are made for English documents."""
    words, lines = passage.words, passage.lines
    count = len(words)
    if not 50 <= count <= 100_000:
        return f"with {'fewer than 50' if count < 50 else 'more than 100,000'} words (gopher_quality)"
    mean = float(passage.word_lengths.mean())
    if not 3 <= mean <= 10:
        return f"with words of {'less than 3' if mean < 3 else 'more than 10'} letters on average (gopher_quality)"
    if passage.text.count("#") > 0.1 * count:
        return "with more than one # for ten words (gopher_quality)"
    if len(_ELLIPSIS.findall(passage.text)) > 0.1 * count:
        return "with more than one ellipsis for ten words (gopher_quality)"
    if sum(line.startswith(BULLETS) for line in lines) > 0.9 * len(lines):
        return "with more than 90% of lines being list items (gopher_quality)"
    if sum(line.endswith(ELLIPSES) for line in lines) > 0.3 * len(lines):
        return "with more than 30% of lines ending in an ellipsis (gopher_quality)"
    if sum(any(map(str.isalpha, word)) for word in words) < 0.8 * count:
        return "with letters in less than 80% of words (gopher_quality)"
    if len(STOP_WORDS & {word.lower().strip(_PUNCTUATION) for word in words}) < 2:
        return "with fewer than two English stop words (gopher_quality)"
    return None


def repetition(passage: Passage) -> str | None:
    """Why a passage fails the repetition rules.

    A line or paragraph is repeated where it stood before. Of runs of words all occurrences count, each character once,
    and a run that occurs once is no repetition. Characters are those of the words.
    """
    for what, pieces, most_pieces, most_characters in (
        ("lines", passage.lines, 0.30, 0.20),
        ("paragraphs", passage.paragraphs, 0.30, 0.20),
    ):
        share, characters = _repeated(pieces)
        if share > most_pieces:
            return f"with more than {most_pieces:.0%} of {what} repeated (gopher_repetition)"
        if characters > most_characters:
            return f"with more than {most_characters:.0%} of characters in repeated {what} (gopher_repetition)"
    for size, most in TOP_RUNS.items():
        if top_share(passage, size) > most:
            return f"with more than {most:.0%} of characters in the top run of {size} words (gopher_repetition)"
    for size, most in REPEATED_RUNS.items():
        if repeated_share(passage, size) > most:
            return f"with more than {most:.0%} of characters in repeated runs of {size} words (gopher_repetition)"
    return None


def top_share(passage: Passage, size: int) -> float:
    """The share of characters within the run of ``size`` words that occurs most often, the longest of equally many."""
    which, counts = passage.run_counts(size)
    if not len(counts) or counts.max() < 2:
        return 0.0
    return max(passage.share_within(which == run, size) for run in np.flatnonzero(counts == counts.max()).tolist())


def repeated_share(passage: Passage, size: int) -> float:
    """The share of characters within runs of ``size`` words that occur more than once."""
    which, counts = passage.run_counts(size)
    return passage.share_within(counts[which] > 1, size)


def _repeated(pieces: Sequence[str]) -> tuple[float, float]:
    """Of pieces that stood before, the share by number and by characters."""
    seen: set[str] = set()
    again = []
    for piece in pieces:
        if piece in seen:
            again.append(len(piece))
        seen.add(piece)
    return len(again) / max(len(pieces), 1), sum(again) / max(sum(map(len, pieces)), 1)
