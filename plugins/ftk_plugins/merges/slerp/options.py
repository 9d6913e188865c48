"""The options of spherical merging."""

from __future__ import annotations

from ftk import Options


class SlerpOptions(Options):
    """There is nothing to choose: the weights say it all."""
