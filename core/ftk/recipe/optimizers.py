"""The optimizers that ``[training] optimizer`` can name, with their options and where these come from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ftk.plugin.options import Options
from ftk.recipe.choices import Named


class Adamw(Options):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019), in torch's fused form where there is one."""

    use: Literal["adamw"] = Field(default="adamw", description="The optimizer's name.")
    beta1: float = Field(default=0.9, ge=0, lt=1, description="Decay of the gradient's running mean.")
    beta2: float = Field(default=0.999, ge=0, lt=1, description="Decay of the squared gradient's running mean.")
    epsilon: float = Field(default=1e-8, gt=0, description="Term against division by zero.")


class Adamw8bit(Options):
    """AdamW whose state takes a byte a number (Dettmers et al. 2022), from the package bitsandbytes."""

    use: Literal["adamw_8bit"] = Field(description="The optimizer's name.")
    beta1: float = Field(default=0.9, ge=0, lt=1, description="Decay of the gradient's running mean.")
    beta2: float = Field(default=0.999, ge=0, lt=1, description="Decay of the squared gradient's running mean.")
    epsilon: float = Field(default=1e-8, gt=0, description="Term against division by zero.")


class Adafactor(Options):
    """Adafactor (Shazeer & Stern 2018): keeps row and column sums of a matrix's squared gradients, not all of them."""

    use: Literal["adafactor"] = Field(description="The optimizer's name.")
    decay_rate: float = Field(
        default=0.8, gt=0, le=1, description="The squares' decay at step t is 1 - t^-decay_rate (section 7)."
    )
    clip_threshold: float = Field(default=1.0, gt=0, description="Root mean square above which an update is cut.")
    epsilon: float = Field(default=1e-30, gt=0, description="Added to each squared gradient.")
    scale_by_weights: bool = Field(
        default=False, description="Multiply the learning rate by the weights' root mean square, at least 0.001."
    )


class Sgd(Options):
    """Stochastic gradient descent with momentum and decoupled weight decay."""

    use: Literal["sgd"] = Field(description="The optimizer's name.")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="Share of the last step's direction that is kept.")
    nesterov: bool = Field(default=False, description="Look ahead by the momentum (Sutskever et al. 2013).")

    @model_validator(mode="after")
    def _something_to_look_ahead_by(self) -> Sgd:
        if self.nesterov and not self.momentum:
            raise ValueError("`nesterov` looks ahead by the momentum, and `momentum` is 0")
        return self


class Muon(Options):
    """Muon (Jordan et al. 2024) for hidden matrices, whose updates are orthogonalised; AdamW for all other weights.

    Updates are scaled to the size of AdamW's (Liu et al. 2025), so that one learning rate serves both.
    """

    use: Literal["muon"] = Field(description="The optimizer's name.")
    momentum: float = Field(default=0.95, ge=0, lt=1, description="Muon's decay of the gradient's running mean.")
    nesterov: bool = Field(default=True, description="Look ahead by the momentum.")
    iterations: int = Field(default=5, gt=0, lt=100, description="Newton-Schulz iterations of an update.")
    beta1: float = Field(default=0.9, ge=0, lt=1, description="AdamW's decay of the gradient's running mean.")
    beta2: float = Field(default=0.95, ge=0, lt=1, description="AdamW's decay of the squared gradient's mean.")
    epsilon: float = Field(default=1e-8, gt=0, description="AdamW's term against division by zero.")


def keeps_momentum(chosen: Options) -> bool:
    """Whether an optimizer keeps a running mean of each parameter's gradients, and as plain numbers."""
    return isinstance(chosen, Adamw | Muon) or (isinstance(chosen, Sgd) and chosen.momentum > 0)


Optimizer = Annotated[Adamw | Adamw8bit | Adafactor | Sgd | Muon, Field(discriminator="use"), Named("adamw")]
"""What ``[training] optimizer`` may say."""
