"""The options of `pretrained`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

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
    tokenizer: str | None = Field(
        default=None,
        min_length=1,
        description="Folder or hub id of a tokenizer or processor, in place of the model's own.",
    )
    trust_remote_code: bool = Field(
        default=False,
        description="Run Python code that the model's repository brings along; only for authors you trust.",
    )

    @model_validator(mode="after")
    def _one_gguf_file(self) -> PretrainedOptions:
        if self.gguf_file is not None and self.path.endswith(".gguf"):
            raise ValueError("`path` names a .gguf file already; leave out `gguf_file`")
        return self
