"""The options of `mega`."""

from pydantic import Field

from ftk import Options


class MegaOptions(Options):
    """How much is remembered of earlier tasks, how much of it a step looks at, and when a new task is learned."""

    memory: int = Field(default=256, gt=0, description="Rows kept of each earlier task, drawn at random once.")
    rows_per_step: int = Field(default=32, gt=0, description="Rows drawn from the memory in each step.")
    learned: float = Field(
        default=1e-3, gt=0, description="Mean loss of a step, in nats, below which it serves the memory alone."
    )
