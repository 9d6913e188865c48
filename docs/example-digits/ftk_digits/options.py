"""What a recipe may say about the variants of this package."""

from pydantic import Field

from ftk import Options


class DigitsOptions(Options):
    """In which order the pixels stand."""

    permutation: int = Field(default=0, ge=0, description="Seed of the order of the pixels; 0: as they are.")


class PerceptronOptions(Options):
    """The size of the model."""

    hidden: int = Field(default=64, gt=0, description="Units of each of its two hidden layers.")


class PixelClassesOptions(Options):
    """Nothing is left open."""
