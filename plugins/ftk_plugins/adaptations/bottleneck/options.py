"""The options of bottleneck adapters."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ftk import Options

Patterns = Annotated[tuple[str, ...], Field(min_length=1)]


class BottleneckOptions(Options):
    """Where adapters stand, how wide they are, and what is trained whole beside them."""

    style: Literal["houlsby", "pfeiffer"] = Field(
        default="houlsby",
        description="Where adapters stand: behind each attention and each MLP of a block, or behind each MLP alone.",
    )
    size: int = Field(default=64, gt=0, description="Width of the bottleneck.")
    activation: Literal["gelu", "relu", "silu", "tanh"] = Field(
        default="gelu", description="What comes between the way down and the way up."
    )
    dropout: float = Field(
        default=0.0, ge=0, lt=1, description="Share of the bottleneck's values that are zeroed in training."
    )
    scale: float = Field(default=1.0, gt=0, description="Factor of what an adapter adds.")
    targets: Patterns | None = Field(
        default=None,
        description="Linear layers behind which adapters stand, by the ends of their names, in place of `style`; "
        'as in `["o_proj", "layers.[0-3].mlp.down_proj"]`.',
    )
    modules_to_save: tuple[str, ...] = Field(
        default=(),
        description="Modules that are trained whole beside the adapters, by patterns as in `targets`: a head that "
        "is new, or the norms.",
    )
