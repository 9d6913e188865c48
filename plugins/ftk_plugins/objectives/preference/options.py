"""The options of the objective `preference`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ftk_plugins.objectives.instruction.options import DialogueOptions


class PreferenceOptions(DialogueOptions):
    """What a recipe may say about `preference`."""

    method: Literal["dpo", "ipo"] = Field(
        default="dpo",
        description="dpo: the log-sigmoid of how much more than at the start the chosen answer is preferred; ipo: a "
        "square that pulls this to 1 / (2 beta) per token and no further.",
    )
    beta: float = Field(
        default=0.1, gt=0, description="How strongly the model is held to the one that the stage began with."
    )
    label_noise: float = Field(
        default=0.0, ge=0, lt=0.5, description="Share of rows whose answers are taken to be the wrong way round."
    )
    chosen_weight: float = Field(
        default=0.0,
        ge=0,
        description="Weight of the chosen answer's mean negative log-likelihood per token, added to the loss; keeps "
        "its probability from falling along with the rejected one's.",
    )
