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
Incremental = Annotated[
    bool,
    Field(
        description="Classes come with the stages: of the head's `labels`, only those that the stages until now have "
        "taught count in the loss and can be predicted.",
    ),
]
FROM_ALL_CLASSES = ("target-sampling", "target-listing")
"""What `incremental` takes away: targets by the model's own prediction, which runs over classes not known as well."""
Taught = Annotated[
    tuple[str, ...] | None,
    Field(
        min_length=1,
        description="With `incremental`: the labels that the stage teaches; unset: those that its training rows have.",
    ),
]


def check_incremental(
    incremental: bool, labels: Sequence[str] | None, taught: Sequence[str] | None, class_weights: ClassWeights = None
) -> None:
    """Raise ``ValueError`` where ``incremental`` lacks what it needs, or ``taught`` names no label."""
    if not incremental:
        if taught is not None:
            raise ValueError("`taught` goes with `incremental = true`")
        return
    if labels is None:
        raise ValueError("`incremental` needs `labels`: the classes of all stages, in the order of the head")
    if class_weights == "balanced":
        raise ValueError('`class_weights = "balanced"` needs rows of every label; give `incremental` weights by name')
    if unknown := [name for name in taught or () if name not in labels]:
        raise ValueError(f"`taught` names {', '.join(unknown)}, not among `labels`")


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
