"""The options that every adaptation made of PEFT's layers has."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ftk import Options

Patterns = Annotated[tuple[str, ...], Field(min_length=1)]


class TargetOptions(Options):
    """Where adapters go, and what is trained whole beside them."""

    targets: Literal["all-linear"] | Patterns = Field(
        default="all-linear",
        description="Which linear layers get an adapter: all but the output layer, or those whose name, or "
        'the end of it, matches a pattern, as in `["q_proj", "layers.[0-3].mlp.*"]`.',
    )
    modules_to_save: tuple[str, ...] = Field(
        default=(),
        description="Modules that are trained whole beside the adapters, by patterns as in `targets`: a head that "
        "is new, or embeddings.",
    )
