"""The options of `scratch`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from ftk_plugins.models.common import ModelOptions


class ScratchOptions(ModelOptions):
    """The architecture, its sizes, and the tokenizer."""

    architecture: str = Field(
        default="llama",
        min_length=1,
        description="Architecture, as `model_type` in Transformers: llama, gpt2, qwen3, bert, …",
    )
    hidden_size: int = Field(default=192, gt=0, description="Width of the residual stream, in channels.")
    layers: int = Field(default=4, gt=0, description="Number of layers; of an encoder-decoder, on each side.")
    heads: int = Field(default=4, gt=0, description="Attention heads per layer; must divide `hidden_size`.")
    kv_heads: int | None = Field(
        default=None,
        gt=0,
        description="Heads of keys and values; must divide `heads`; unset: as many as `heads`.",
    )
    intermediate_size: int | None = Field(
        default=None,
        gt=0,
        description="Width of the feed-forward layers, in channels; unset: 4 times `hidden_size`.",
    )
    max_length: int = Field(default=512, gt=0, description="Longest sequence that the model can read, in tokens.")
    tie_embeddings: bool = Field(default=True, description="Whether input and output share one embedding matrix.")
    config: dict[str, Any] = Field(
        default_factory=dict,
        description="Anything else of the architecture's configuration, by its name in Transformers.",
    )
    vocabulary_size: int = Field(
        default=4096,
        ge=260,
        description="Most tokens that the trained tokenizer may have, special tokens included.",
    )
    special_tokens: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        default=(), description="More tokens that are never split, such as the marks of a chat template."
    )
    tokenizer: str | None = Field(
        default=None,
        min_length=1,
        description="Folder or hub id of a tokenizer to use; none is trained then.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> ScratchOptions:
        if self.kv_heads is not None and self.heads % self.kv_heads:
            raise ValueError(f"`kv_heads` ({self.kv_heads}) must divide `heads` ({self.heads})")
        if self.hidden_size % self.heads:
            raise ValueError(f"`heads` ({self.heads}) must divide `hidden_size` ({self.hidden_size})")
        if self.vocabulary_size < 260 + len(self.special_tokens):
            raise ValueError("`vocabulary_size` must hold 256 bytes, 4 tokens of its own and `special_tokens`")
        trained_only = {"vocabulary_size", "special_tokens"} & self.model_fields_set
        if self.tokenizer is not None and trained_only:
            names = " and ".join(f"`{name}`" for name in sorted(trained_only))
            raise ValueError(
                f"{names} shape a trained tokenizer; `tokenizer` names one that exists: give one or the other"
            )
        return self
