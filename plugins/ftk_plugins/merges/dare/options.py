"""The options of DARE."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ftk import Options


class DareOptions(Options):
    """How much is dropped, and what follows."""

    density: float = Field(
        default=0.1,
        gt=0,
        le=1,
        description="Share of the entries that is kept, drawn at random; they are divided by it.",
    )
    then: Literal["linear", "ties"] = Field(
        default="linear", description="`linear`: what is left is added up; `ties`: a sign is elected as TIES does."
    )
