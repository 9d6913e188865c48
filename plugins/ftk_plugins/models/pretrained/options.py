"""The options of `pretrained`."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Literal

from pydantic import Field, field_validator, model_validator

from ftk_plugins.models.common import ModelOptions


class PretrainedOptions(ModelOptions):
    """Which model, in what type, and with which tokenizer."""

    path: str = Field(
        min_length=1,
        description="Hub id (`owner/name`), local folder as `save_pretrained` writes it, or `.gguf` file.",
    )
    gguf_file: str | None = Field(
        default=None,
        min_length=1,
        description="Name of a GGUF file in that folder or repository; read in place of safetensors.",
    )
    revision: str | None = Field(
        default=None,
        min_length=1,
        description="Branch, tag or commit on the hub; a commit makes the recipe repeatable.",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="float32",
        description="Type that the weights are held in; auto: as they were saved. "
        "Training in 16 bits loses small updates.",
    )
    quantization: Literal["none", "nf4", "int8"] = Field(
        default="none",
        description="In how few bits the weights of all linear layers but the output layer are held, frozen: 4 as "
        "`nf4` (QLoRA) or 8. Needs bitsandbytes, and an adaptation that leaves them as they are.",
    )
    double_quantization: bool = Field(
        default=True,
        description="With `nf4`, hold the scales of its blocks in 8 bits as well, which saves 0.37 bits per weight.",
    )
    tokenizer: str | None = Field(
        default=None,
        min_length=1,
        description="Folder or hub id of a tokenizer or processor, in place of the model's own.",
    )
    new_tokens: str | tuple[str, ...] = Field(
        default=(),
        description="Tokens that the model gets beside its own: a list, or the path of a file with one a line. "
        "Texts are then read, and answers written, with each of them in one piece.",
    )
    new_token_start: Literal["parts", "mean"] = Field(
        default="parts",
        description="Where the embedding of a new token starts: at the mean of the tokens that spelled it so "
        "far, or of all tokens.",
    )
    trust_remote_code: bool = Field(
        default=False,
        description="Run Python code that the model's repository brings along; only for authors you trust.",
    )

    def more_needs(self) -> tuple[str, ...]:
        return () if self.quantization == "none" else ("quantized-base",)

    def withheld(self) -> tuple[str, ...]:
        new = () if self.new_tokens else ("new-tokens",)
        return new if self.quantization == "none" else (*new, "weight-drift", "sharding")

    @field_validator("quantization")
    @classmethod
    def _is_installed(cls, kind: str) -> str:
        if kind != "none" and importlib.util.find_spec("bitsandbytes") is None:
            raise ValueError(f"`{kind}` needs bitsandbytes, which is not installed: pip install bitsandbytes")
        return kind

    @model_validator(mode="after")
    def _of_plain_weights(self) -> PretrainedOptions:
        if self.quantization != "none" and (self.gguf_file is not None or self.path.endswith(".gguf")):
            raise ValueError(
                "`quantization` is of plain weights: those of a GGUF file are unpacked, and have lost some already"
            )
        if self.quantization != "nf4" and not self.double_quantization:
            raise ValueError('`double_quantization` is of `quantization = "nf4"`')
        return self

    @field_validator("new_tokens")
    @classmethod
    def _are_tokens(cls, told: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if complaint := complaint_about((told,) if isinstance(told, str) else told):
            raise ValueError(complaint)
        return told

    @model_validator(mode="after")
    def _start_of_some(self) -> PretrainedOptions:
        if self.new_token_start != "parts" and not self.new_tokens:
            raise ValueError("`new_token_start` says where `new_tokens` start, and there are none")
        return self

    @model_validator(mode="after")
    def _one_gguf_file(self) -> PretrainedOptions:
        if self.gguf_file is not None and self.path.endswith(".gguf"):
            raise ValueError("`path` names a .gguf file already; leave out `gguf_file`")
        return self


def complaint_about(tokens: Sequence[str]) -> str:
    """What is wrong with these tokens, if anything."""
    for token in tokens:
        if not token or token != token.strip():
            return f"{token!r} is empty or has a space at an end"
        if tokens.count(token) > 1:
            return f"{token!r} stands there twice"
    return ""
