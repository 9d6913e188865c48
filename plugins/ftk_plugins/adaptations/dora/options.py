"""The options of weight-decomposed low-rank adaptation."""

from __future__ import annotations

from ftk_plugins.adaptations.target_options import LowRankOptions


class DoraOptions(LowRankOptions):
    """The size and the place of the update of directions; magnitudes are trained beside it."""
