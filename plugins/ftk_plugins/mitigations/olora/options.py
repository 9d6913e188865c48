"""The options of `olora`."""

from __future__ import annotations

from pydantic import Field

from ftk import Options


class OloraOptions(Options):
    """How strongly a stage's adapters are kept off those of earlier stages, and small."""

    orthogonality: float = Field(
        default=0.5, ge=0, description="Weight of the squared products of A's rows with those of earlier stages' A."
    )
    l2: float = Field(default=0.0, ge=0, description="Weight of the squared elements of A and B.")
