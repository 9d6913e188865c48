"""The options of linear merging."""

from __future__ import annotations

from ftk import Options


class LinearOptions(Options):
    """There is nothing to choose: the weights say it all."""
