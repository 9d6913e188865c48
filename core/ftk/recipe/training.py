"""The options of ``[training]``: how long, how fast, in what precision, and how often progress is saved."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ftk.recipe.watching import Watching


class Training(Watching):
    """What a stage's ``[training]`` table may say.

    The result depends on ``batch_size``, never on how the batch is cut: ``micro_batch_size`` and the number of
    processes only decide how many rows one device holds at a time.
    """

    epochs: float | None = Field(
        default=None, gt=0, description="Passes over the stage's training rows; 3 where `steps` is not given either."
    )
    steps: int | None = Field(default=None, gt=0, description="Optimizer steps, in place of `epochs`.")
    batch_size: int = Field(default=8, gt=0, description="Rows per optimizer step, over all processes.")
    micro_batch_size: int | None = Field(
        default=None, gt=0, description="Rows per forward pass on one device; lower it where memory is short."
    )
    learning_rate: float = Field(default=2e-4, gt=0, description="Peak learning rate of AdamW.")
    schedule: Literal["linear", "cosine", "constant"] = Field(
        default="linear",
        description="The learning rate's course after warm-up: to zero linearly or as a cosine, or constant.",
    )
    warmup: float = Field(default=0.0, ge=0, lt=1, description="Share of the steps in which the rate rises from zero.")
    weight_decay: float = Field(default=0.0, ge=0, description="AdamW's decoupled weight decay, on matrices only.")
    adam_beta1: float = Field(default=0.9, ge=0, lt=1, description="AdamW's decay of the gradient's running mean.")
    adam_beta2: float = Field(default=0.999, ge=0, lt=1, description="AdamW's decay of the squared gradient's mean.")
    adam_epsilon: float = Field(default=1e-8, gt=0, description="AdamW's term against division by zero.")
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
