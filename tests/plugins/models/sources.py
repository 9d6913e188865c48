"""Loading a pretrained model in one line, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ftk.parts import Head
from ftk_plugins.models.pretrained.options import PretrainedOptions
from ftk_plugins.models.pretrained.pretrained import Pretrained

CAUSAL = Head("causal_lm")
CLASSES = Head("sequence_classification", ("bad", "good"))


def load(path: Path | str, head: Head = CAUSAL, **options: Any) -> Any:
    return Pretrained(PretrainedOptions(path=str(path), **options)).load(head, lambda: iter(()))
