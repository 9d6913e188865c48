"""The options of the objective `contrastive`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ftk import Options


class ContrastiveOptions(Options):
    """What a recipe may say about `contrastive`."""

    kind: Literal["pairs", "triplets", "dropout"] = Field(
        default="pairs",
        description="What lies near the anchor: another text, another text with hard negatives, or the anchor itself "
        "under another dropout (SimCSE).",
    )
    anchor: str = Field(default="anchor", min_length=1, description="The column that holds the anchor.")
    positive: str = Field(
        default="positive", min_length=1, description="The column that holds the text that belongs to the anchor."
    )
    negative: str = Field(
        default="negative",
        min_length=1,
        description="The column that holds a text, or a list of texts, that do not; of triplets.",
    )
    negatives: int = Field(
        default=1, gt=0, description="Most hard negatives of a row: the first ones of a longer list; of triplets."
    )
    temperature: float = Field(
        default=0.05, gt=0, description="Similarities are divided by it; the lower, the more the nearest ones count."
    )
    pooling: Literal["mean", "cls", "last"] = Field(
        default="mean",
        description="What of the last hidden states is the embedding: the mean over the tokens, the first token's, "
        "or the last token's.",
    )
    normalise: bool = Field(
        default=True, description="Embeddings have length 1, so that a similarity is a cosine; else a dot product."
    )
    symmetric: bool = Field(
        default=False, description="Also find each anchor among all anchors by its positive; the mean of both losses."
    )
    max_length: int = Field(default=512, ge=4, description="Most tokens of a text; a longer one is cut at its end.")

    @model_validator(mode="after")
    def _fit_together(self) -> ContrastiveOptions:
        idle = {
            "pairs": ("negative", "negatives"),
            "triplets": (),
            "dropout": ("positive", "negative", "negatives", "symmetric"),
        }[self.kind]
        fields = type(self).model_fields
        if given := [name for name in idle if getattr(self, name) != fields[name].default]:
            raise ValueError(f'`{given[0]}` has nothing to act on with kind = "{self.kind}"')
        columns = [self.anchor, self.positive, self.negative][: {"pairs": 2, "triplets": 3, "dropout": 1}[self.kind]]
        if len(set(columns)) < len(columns):
            raise ValueError("two of its texts are read from one column")
        return self

    def withheld(self) -> tuple[str, ...]:
        return ("embedding-predictions",) if self.kind == "dropout" else ()
