"""The options of task arithmetic."""

from __future__ import annotations

from ftk import Options


class TaskArithmeticOptions(Options):
    """There is nothing to choose: the weights say it all."""
