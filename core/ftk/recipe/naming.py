"""Names of tasks: that of the stage that teaches one, and of several that one stage teaches its own behind a slash."""

from __future__ import annotations


def name_of(stage: str, member: str) -> str:
    """The name of one of several tasks that a stage teaches."""
    return f"{stage}/{member}"


def stage_of(task: str) -> str:
    """The stage that teaches a task, or ``retain``."""
    return task.partition("/")[0]


def member_of(task: str) -> str:
    """The name in its stage of one of several tasks that it teaches; empty for a task that is taught alone."""
    return task.partition("/")[2]
