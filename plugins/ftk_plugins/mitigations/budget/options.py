"""The options of `budget`."""

from __future__ import annotations

from pydantic import Field

from ftk import Options


class BudgetOptions(Options):
    """How much must be kept, and how the strengths are turned to keep it."""

    retention_floor: float = Field(
        default=0.95,
        gt=0,
        le=1,
        description="What each earlier task must keep of the score that the stage's starting model has, 0 to 1.",
    )
    metric: str | None = Field(
        default=None, description="The metric that is compared; by default each task's first metric."
    )
    every: int | None = Field(
        default=None, gt=0, description="Steps between two measurements; by default a tenth of the stage."
    )
    mitigations: tuple[str, ...] = Field(
        default=(),
        description="Those whose strengths are turned, by name; all that have one where none is named.",
    )
    factor: float = Field(
        default=2.0,
        gt=1,
        description="What the strengths are divided by where nothing has been lost, and multiplied by where twice as "
        "much has been lost as may be; between and beyond in proportion.",
    )
    limit: float = Field(
        default=1000.0,
        gt=1,
        description="How many times the recipe's strength a strength may become, or a how-manieth of it.",
    )
    trials: int = Field(
        default=5,
        ge=0,
        description="Measurements by which the step back is found where the floor does not hold at the end; 0: none.",
    )

    def turned(self) -> tuple[str, ...]:
        return self.mitigations
