"""The options of the data set `mixture`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ftk import Options


class Ingredient(BaseModel):
    """One part of the mix: a data set's table, and how much of the mix it is."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)

    weight: float | None = Field(
        default=None, gt=0, strict=True, description="Its weight beside the others'; unset: how many rows it has."
    )
    share: float | None = Field(
        default=None, gt=0, lt=1, strict=True,
        description="Its share of the final mix, whatever the others' weights.",
    )  # fmt: skip


class MixtureOptions(Options):
    """What a recipe may say about `mixture`."""

    parts: dict[str, Ingredient] = Field(
        min_length=1,
        description="The data sets by name, each a table with its own `use` and options, `transform` too, and "
        "perhaps a `weight` or a `share`.",
        examples=[{"one": {"use": "files", "path": "one.jsonl"}, "two": {"use": "files", "path": "two.jsonl"}}],
    )
    temperature: float = Field(
        default=1.0, gt=0,
        description="A part's share goes with its weight to the power 1 / temperature: above 1, small parts "
        "get more of the mix; 1: as the weights say.",
    )  # fmt: skip
    when_out: Literal["stop", "repeat"] = Field(
        default="stop",
        description="What happens when a part has no more rows: the mix ends and no row comes twice, or that part "
        "begins anew until every row of every part came.",
    )
    limit: int | None = Field(default=None, gt=0, description="Mix no more than this many rows; unset: all.")
    seed: int = Field(
        default=0, ge=0, description="Seed of the order in which each part's rows come, and so of those left out."
    )

    @model_validator(mode="after")
    def _add_up(self) -> Self:
        both = [name for name, part in self.parts.items() if part.weight is not None and part.share is not None]
        if both:
            raise ValueError(f"part `{both[0]}` has a `weight` and a `share`: leave out one of them")
        free = {name: part for name, part in self.parts.items() if part.share is None}
        weighed = [name for name, part in free.items() if part.weight is not None]
        if weighed and len(self.parts) < 2:
            raise ValueError(f"part `{weighed[0]}` is alone, and its `weight` weighs it against nothing: leave it out")
        if weighed and len(weighed) < len(free):
            bare = next(name for name in free if name not in weighed)
            raise ValueError(f"part `{bare}` has no `weight`, and part `{weighed[0]}` has one: weigh all or none")
        fixed = sum(part.share or 0 for part in self.parts.values())
        if free and fixed >= 1:
            raise ValueError(f"the shares add up to {fixed:g} and leave nothing for part `{next(iter(free))}`")
        if not free and abs(fixed - 1) > 1e-6:
            raise ValueError(f"the shares add up to {fixed:g}, not to 1: leave out one, and that part fills the rest")
        if len(free) < 2 and self.temperature != 1:
            raise ValueError("`temperature` changes nothing: no two parts go by weight or size")
        return self

    def data_sets(self) -> Mapping[str, Mapping[str, Any]]:
        return {name: part.model_extra or {} for name, part in self.parts.items()}
