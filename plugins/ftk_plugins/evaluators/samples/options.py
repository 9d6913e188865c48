"""The options of the evaluator `samples`."""

from __future__ import annotations

from pydantic import Field

from ftk import Options


class SamplesOptions(Options):
    """What a recipe may say about `samples`."""

    rows: int = Field(default=5, gt=0, description="How many test rows; all where there are fewer.")
    seed: int = Field(default=0, ge=0, description="Seed of their choice; the same rows each time.")
    max_new_tokens: int = Field(default=32, gt=0, description="Tokens after which an answer is cut off.")
    batch_size: int = Field(
        default=64, gt=0, description="Rows answered together on one device; lower it where memory is short."
    )
