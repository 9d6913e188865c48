"""The base of all parts, and the plain types that pass between them."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

Row = Mapping[str, Any]
"""One row of a data set: column name to value."""

Features = dict[str, np.ndarray]
"""One encoded row: arrays of any shape by name; ``input_ids`` int32 where the model reads tokens.

A 1-D array has a position for each of its entries, and a row is as long as its longest one; pixels and other features
that have another shape count for nothing, and a row of such alone is one position.
"""

State = dict[str, Any]
"""What a part must remember to go on after a restart: tensors and JSON values by name."""

Split = Literal["train", "validation", "test"]


class Part(ABC):  # noqa: B024 - each kind of part has abstract methods of its own
    """The base of all parts. Stateless unless it says otherwise."""

    def state_dict(self) -> State:
        """Everything that must survive a restart in the middle of a run: tensors and JSON values."""
        return {}

    def load_state_dict(self, state: State) -> None:
        """Take back what :meth:`state_dict` gave. Raises ``ValueError`` for a state it does not know."""
        if state:
            raise ValueError(f"{type(self).__name__} has no state, yet was handed: {', '.join(sorted(state))}")
