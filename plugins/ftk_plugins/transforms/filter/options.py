"""The options of the transform `filter`."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from ftk_plugins.transforms.column_options import ColumnOptions

RuleName = Literal["gopher_quality", "gopher_repetition", "c4"]


class FilterOptions(ColumnOptions):
    """What a recipe may say about `filter`."""

    rules: list[RuleName] = Field(
        default=[], description="Rules of the literature, by name; see the page of `filter`.", examples=[["c4"]]
    )
    min_characters: int | None = Field(default=None, gt=0, description="Fewest characters; unset: any number.")
    max_characters: int | None = Field(default=None, gt=0, description="Most characters; unset: any number.")
    min_words: int | None = Field(default=None, gt=0, description="Fewest words; unset: any number.")
    max_words: int | None = Field(default=None, gt=0, description="Most words; unset: any number.")
    scripts: list[str] = Field(
        default=[],
        description='Unicode scripts that the letters should be of, such as `["Latin"]` or `["Han", "Hiragana"]`; '
        "empty: any.",
    )
    min_script_share: float = Field(
        default=0.5, gt=0, le=1, description="Least share of the letters that is of `scripts`."
    )
    max_symbol_share: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="Largest share of characters that are no letter, number or white space; unset: any.",
    )
    max_repetition: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="Largest share of runs of 4 words that stood in the text before (Welleck et al. 2020); unset: any.",
    )

    @field_validator("scripts")
    @classmethod
    def _known(cls, scripts: list[str]) -> list[str]:
        import regex

        for name in scripts:
            try:
                known = name.replace("_", "").isalpha() and regex.compile(rf"\p{{Script={name}}}")
            except regex.error:
                known = False
            if not known:
                raise ValueError(f"Unicode has no script {name!r}; write Latin, Cyrillic, Han, Arabic …")
        return scripts

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        asked = self.model_dump(exclude={"columns", "min_script_share"})
        if not any(value or value == 0 for value in asked.values() if not isinstance(value, list) or value):
            raise ValueError("keeps every row: give `rules`, or a limit such as `min_words`")
        for what in ("characters", "words"):
            least, most = getattr(self, f"min_{what}"), getattr(self, f"max_{what}")
            if least is not None and most is not None and least > most:
                raise ValueError(f"`min_{what}` is above `max_{what}`, so that no row could stay")
        if not self.scripts and self.min_script_share != type(self).model_fields["min_script_share"].default:
            raise ValueError("`min_script_share` acts with `scripts` alone")
        return self
