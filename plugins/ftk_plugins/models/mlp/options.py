"""The options of the model source `mlp`."""

from __future__ import annotations

from pydantic import Field

from ftk import Options


class MlpOptions(Options):
    """What a recipe may say about `mlp`."""

    image_size: int = Field(
        default=28, gt=0, description="Height and width of the images, in pixels; others are resized."
    )
    colours: bool = Field(
        default=False, description="Read red, green and blue apart; else the grey of a pixel, the mean of the three."
    )
    hidden_size: int = Field(default=400, gt=0, description="Units of each hidden layer.")
    layers: int = Field(default=2, ge=0, description="Hidden layers, each with a ReLU behind it; 0: a linear model.")
    dropout: float = Field(
        default=0.0, ge=0, lt=1, description="Probability of each hidden unit to be left out in training."
    )
    seed: int | None = Field(
        default=None, ge=0, lt=2**63, description="Seed of the weights, and of nothing else; unset: the recipe's seed."
    )
