"""The options of the evaluator `perplexity`."""

from __future__ import annotations

from pydantic import Field

from ftk import Options


class PerplexityOptions(Options):
    """What a recipe may say about `perplexity`."""

    batch_size: int | None = Field(
        default=None,
        gt=0,
        description="Rows per forward pass on one device; left out: the training's `micro_batch_size`.",
    )

    def metrics(self) -> tuple[str, ...]:
        return ("perplexity",)
