"""The options of ``[training]``: how long, how fast, in what precision, and how often progress is saved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from ftk.recipe.optimizers import Adamw, Optimizer
from ftk.recipe.watching import Watching


class Training(Watching):
    """What a stage's ``[training]`` table may say.

    The result depends on ``batch_size``, never on how the batch is cut: ``micro_batch_size`` and the number of
    processes only decide how many rows one device holds at a time.
    """

    MOVED: ClassVar[Mapping[str, str]] = {
        f"adam_{key}": f'it is the optimizer\'s own: write optimizer = {{ use = "adamw", {key} = ... }}'
        for key in ("beta1", "beta2", "epsilon")
    }
    """Keys that have gone elsewhere, each with the mend."""

    epochs: float | None = Field(
        default=None, gt=0, description="Passes over the stage's training rows; 3 where `steps` is not given either."
    )
    steps: int | None = Field(default=None, gt=0, description="Optimizer steps, in place of `epochs`.")
    batch_size: int = Field(default=8, gt=0, description="Rows per optimizer step, over all processes.")
    micro_batch_size: int | None = Field(
        default=None, gt=0, description="Rows per forward pass on one device; lower it where memory is short."
    )
    optimizer: Optimizer = Field(
        default=Adamw(), description="How gradients become steps; a name, or a table with `use` and its options."
    )
    learning_rate: float = Field(default=2e-4, gt=0, description="Peak learning rate.")
    schedule: Literal["linear", "cosine", "constant"] = Field(
        default="linear",
        description="The learning rate's course after warm-up: to zero linearly or as a cosine, or constant.",
    )
    warmup: float = Field(default=0.0, ge=0, lt=1, description="Share of the steps in which the rate rises from zero.")
    weight_decay: float = Field(
        default=0.0, ge=0, description="Decoupled weight decay; never on norms, biases and embeddings."
    )
    max_grad_norm: float = Field(default=1.0, ge=0, description="The gradient's L2 norm is clipped to this; 0: never.")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto", description="Type of the matrix products; auto: bf16 where the hardware has it, else fp32."
    )
    gradient_checkpointing: bool = Field(
        default=False, description="Recompute activations in the backward pass: less memory, about a third more time."
    )
    checkpoint_every: int = Field(
        default=200, ge=0, description="Optimizer steps between checkpoints; 0: only at the end."
    )
    keep_checkpoints: int = Field(
        default=2, gt=0, description="How many checkpoints of the running stage stay on disk."
    )
    log_every: int = Field(default=10, gt=0, description="Optimizer steps between reports of loss and speed.")

    @property
    def schedule_name(self) -> str:
        """The schedule's name in ``transformers.get_scheduler``."""
        return "constant_with_warmup" if self.schedule == "constant" else self.schedule

    @model_validator(mode="after")
    def _one_length(self) -> Training:
        if self.epochs is not None and self.steps is not None:
            raise ValueError("give `epochs` or `steps`, not both")
        return self
