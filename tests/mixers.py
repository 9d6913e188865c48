"""A mixer of one task's rows and what is mixed into them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ftk.data.mixing import Mixer
from ftk.parts import Source


def mixer_of(items: Sequence[Any], objective: Any, sources: Sequence[Source], seed: int) -> Mixer:
    return Mixer([Source("train", items, 1.0, objective)], len(items), sources, seed)
