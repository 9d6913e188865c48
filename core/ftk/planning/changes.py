"""What to change in a recipe that does not fit: one change on top of another, until it does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ftk.errors import UserError
from ftk.planning.plan import Planner, StagePlan
from ftk.recipe.specs import Recipe

WORTH = 0.02
"""A change that saves less than this share of what is too much is not told."""


@dataclass(frozen=True)
class Change:
    """One change to a recipe, on top of those before it.

    Attributes:
        setting: as it stands after ``--set``.
        plan: the stage with it.
        saves: bytes of the peak that it saves.
    """

    setting: str
    plan: StagePlan
    saves: int

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        peak, fits = self.plan.peak, self.plan.fits
        return {"set": self.setting, "saves_bytes": self.saves, "peak_bytes": peak, "fits": fits}


def changes(
    planner: Planner, number: int, before: StagePlan, changed: Callable[[list[str]], Recipe]
) -> Iterator[Change]:
    """Changes that make a stage smaller, the cheapest first, until it fits.

    Args:
        planner: of the recipe as it stands.
        number: of the stage, from 1.
        before: its plan.
        changed: gives the recipe with these settings; raises UserError for one that it does not allow.
    """
    settings: list[str] = []
    for setting in _candidates(planner, number):
        if before.fits is not False:
            return
        try:
            after = planner.changed(changed([*settings, setting])).stage(number)
        except UserError:  # the recipe, the model or this machine does not have it
            continue
        saves = before.peak - after.peak
        if saves >= WORTH * (before.peak - planner.machine.room):
            settings.append(setting)
            yield Change(setting, after, saves)
            before = after


def _candidates(planner: Planner, number: int) -> Iterator[str]:
    """What costs least first: time, then the method, then exactness."""
    stage = planner.recipe.stages[number - 1]
    prefix = f"stage.{number}." if "[[stage]]" in planner.recipe.text.replace(" ", "") else ""
    yield f"{prefix}training.micro_batch_size=1"
    yield f"{prefix}training.gradient_checkpointing=true"
    if planner.machine.devices > 1:
        yield 'training.sharding="full"'
    yield f'{prefix}training.optimizer="adamw_8bit"'
    yield f'{prefix}adaptation.start_copy="none"'
    if stage.adaptation.variant.name != "lora":
        yield f'{prefix}adaptation={{use="lora"}}'
    yield 'model.dtype="bfloat16"'
