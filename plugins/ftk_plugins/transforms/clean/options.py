"""The options of the transform `clean`."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from ftk_plugins.transforms.column_options import ColumnOptions


class CleanOptions(ColumnOptions):
    """What a recipe may say about `clean`."""

    unicode: Literal["NFC", "NFKC", "keep"] = Field(
        default="NFC",
        description="The Unicode form of all texts: NFC makes equal what looks and is equal, NFKC also what differs in "
        "form alone, as in `ﬁ` and `fi`, `Ａ` and `A`.",
    )
    control: bool = Field(
        default=True,
        description="Take out control and invisible formatting characters; line ends of every kind become `\\n`.",
    )
    whitespace: Literal["trim", "collapse", "keep"] = Field(
        default="trim",
        description="trim: none at the ends of lines and texts; collapse: also one space for many, and at most one "
        "empty line.",
    )
    html: Literal["keep", "entities", "strip"] = Field(
        default="keep",
        description="entities: `&amp;` becomes `&`; strip: also without tags, comments, scripts and styles.",
    )
    drop_empty: bool = Field(default=True, description="Drop rows of which no text is left.")

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        if {self.unicode, self.whitespace, self.html} == {"keep"} and not (self.control or self.drop_empty):
            raise ValueError("everything is switched off; leave the transform out")
        return self
