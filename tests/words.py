"""Two words for each of four classes, in files of rows."""

from __future__ import annotations

import json
from pathlib import Path

WORDS = {"river": "water runs", "hill": "stone rises", "tree": "leaf grows", "star": "light burns"}


def write_words(folder: Path, rows: int) -> None:
    """Write so many rows of each class, with its name, into a file of its own."""
    for label, words in WORDS.items():
        texts = [f"{words} {'again ' * number}" for number in range(rows)]
        lines = [json.dumps({"text": text, "label": label}) + "\n" for text in texts]
        (folder / f"{label}.jsonl").write_text("".join(lines), encoding="utf-8")
