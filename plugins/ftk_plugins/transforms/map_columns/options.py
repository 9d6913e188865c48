"""The options of the transform `map_columns`."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, StrictBool, StrictFloat, StrictInt, StrictStr, field_validator, model_validator

from ftk import Options


class MapColumnsOptions(Options):
    """What a recipe may say about `map_columns`."""

    rename: dict[str, str] = Field(
        default={},
        description='New names, as in `{ instruction = "question" }`: the new name, then the one that it has.',
        examples=[{"instruction": "question"}],
    )
    constants: dict[str, StrictBool | StrictInt | StrictFloat | StrictStr] = Field(
        default={}, description="Columns that have one value in every row: the name, then the value."
    )
    keep: list[str] | None = Field(
        default=None, min_length=1, description="The columns to keep, by their new names, in this order; unset: all."
    )
    drop: list[str] = Field(default=[], description="Columns to drop, by their new names.")

    @field_validator("constants", mode="before")
    @classmethod
    def _fits_a_column(cls, constants: Any) -> Any:
        for value in constants.values() if isinstance(constants, dict) else ():
            if isinstance(value, int) and not -(2**63) <= value < 2**63:
                raise ValueError(f"a column holds whole numbers of 64 bits, and {value} has more")
        return constants

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not (self.rename or self.constants or self.keep or self.drop):
            raise ValueError("asks for nothing: give `rename`, `constants`, `keep` or `drop`")
        if self.keep is not None and self.drop:
            raise ValueError("`keep` and `drop` exclude each other: what is not kept is dropped")
        if self.keep is not None and len(set(self.keep)) < len(self.keep):
            raise ValueError("`keep` names a column twice")
        if len(set(self.rename.values())) < len(self.rename):
            raise ValueError("`rename` gives one column two names")
        for name in self.constants:
            if name in self.rename:
                raise ValueError(f"`{name}` is both renamed and a constant")
            if name in self.drop or (self.keep is not None and name not in self.keep):
                raise ValueError(f"`{name}` is a constant and is dropped again")
        return self
