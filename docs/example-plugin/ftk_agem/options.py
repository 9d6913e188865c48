"""The options of `agem`."""

from pydantic import Field

from ftk import Options


class AgemOptions(Options):
    """How much is remembered of earlier tasks, and how much of it is looked at in each step."""

    memory: int = Field(default=256, gt=0, description="Rows kept of each earlier task, drawn at random once.")
    rows_per_step: int = Field(
        default=32, gt=0, description="Rows drawn from the memory in each step for its reference gradient."
    )
