"""The options of the transform `map_columns`."""

from __future__ import annotations

from typing import Self

from pydantic import Field, StrictBool, StrictFloat, StrictInt, StrictStr, model_validator

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

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not (self.rename or self.constants or self.keep or self.drop):
            raise ValueError("asks for nothing: give `rename`, `constants`, `keep` or `drop`")
        if self.keep is not None and self.drop:
            raise ValueError("`keep` and `drop` exclude each other: what is not kept is dropped")
        if len(set(self.rename.values())) < len(self.rename):
            raise ValueError("`rename` gives one column two names")
        for name in self.constants:
            if name in self.rename:
                raise ValueError(f"`{name}` is both renamed and a constant")
            if name in self.drop or (self.keep is not None and name not in self.keep):
                raise ValueError(f"`{name}` is a constant and is dropped again")
        return self
