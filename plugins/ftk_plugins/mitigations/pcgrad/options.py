"""The options of `pcgrad`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ftk import Options


class PcgradOptions(Options):
    """Over what two gradients are compared."""

    scope: Literal["all", "tensor"] = Field(
        default="all",
        description="Two gradients are compared over all weights that both sources share, as in the paper, or weight "
        "by weight.",
    )
