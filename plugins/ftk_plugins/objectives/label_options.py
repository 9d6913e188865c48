"""What the options of objectives with labels share: the weight of a label, and what names and weights must fulfil."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

Weight = Annotated[float, Field(gt=0)]
ClassWeights = Literal["balanced"] | dict[str, Weight] | None
HeadName = Annotated[
    str,
    Field(
        description="A name for the model's head; unset: tasks with the same labels share one, whatever they mean.",
    ),
]


def check_labels(labels: Sequence[str] | None, class_weights: ClassWeights, least: int) -> None:
    """Raise ``ValueError`` where labels are named twice or are fewer than ``least``, or weights name none of them."""
    if labels is None:
        return
    if len(set(labels)) < len(labels):
        raise ValueError("`labels` names one label twice")
    if len(labels) < least:
        raise ValueError("`labels` names one label, and there is nothing to tell apart")
    if isinstance(class_weights, dict):
        unknown = [name for name in class_weights if name not in labels]
        if unknown:
            raise ValueError(f"`class_weights` names {', '.join(unknown)}, not among `labels`")
