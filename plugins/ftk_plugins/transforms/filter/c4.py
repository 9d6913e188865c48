"""The rules by which C4 was cleaned (Raffel et al. 2020, section 2.2): which lines stay, and which pages."""

from __future__ import annotations

import re

from ftk_plugins.transforms.filter.passage import Passage

LINE_ENDS = (".", "!", "?", '"', "”")
LEAST_WORDS, LEAST_SENTENCES = 5, 3
POLICY = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
_CITATION = re.compile(r"\[(?:\d+|edit|citation needed)\]", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?]+[\"”')\]]*(?=\s|$)")


def kept_lines(text: str) -> str:
    """A text without the lines that C4 leaves out, and without marks of citation as Wikipedia has them."""
    lines = (_CITATION.sub("", line.strip()) for line in text.split("\n"))
    return "\n".join(line for line in lines if _stays(line))


def page(passage: Passage) -> str | None:
    """Why a whole page goes, whatever its lines."""
    if "{" in passage.text:
        return "with a curly bracket (c4)"
    return 'with "lorem ipsum" (c4)' if "lorem ipsum" in passage.text.lower() else None


def sentences(passage: Passage) -> str | None:
    """Why a page goes of which some lines stay; a sentence ends in a mark before white space."""
    count = len(_SENTENCE_END.findall(passage.text))
    return f"with fewer than {LEAST_SENTENCES} sentences in lines that stay (c4)" if count < LEAST_SENTENCES else None


def _stays(line: str) -> bool:
    low = line.lower()
    return (
        line.endswith(LINE_ENDS)
        and len(line.split()) >= LEAST_WORDS
        and "javascript" not in low
        and not any(phrase in low for phrase in POLICY)
    )
