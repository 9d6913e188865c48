"""What mitigations that look at earlier rows ask of them."""

from __future__ import annotations

from ftk import UserError
from ftk.parts import Task


def refuse_empty(name: str, task: Task, lacking: str) -> None:
    """See that a task has training rows.

    Args:
        name: of the mitigation, for the message.
        task: an earlier one.
        lacking: what there is not without them.

    Raises:
        UserError: it has none.
    """
    if len(task.train) == 0:
        raise UserError(
            f"mitigation {name}: {task.train.origin} has no rows, {lacking}",
            "give the task training rows, or drop the mitigation",
        )
