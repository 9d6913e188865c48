"""The options of ``[training]``: how long, how fast, in what precision, and how often progress is saved."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from ftk.recipe.optimizers import Adamw, Optimizer
from ftk.recipe.schedules import AnySchedule, Linear, Wsd
from ftk.recipe.watching import Watching


def _limit(sizes: dict[str, str]) -> dict[str, str]:
    if not all(place.isdecimal() or place == "cpu" for place in sizes):
        raise ValueError("its keys are the numbers of accelerators and `cpu`")
    if not all(re.fullmatch(r"[0-9]+[KMG]i?B", size) for size in sizes.values()):
        raise ValueError('it gives sizes, as in { 0 = "20GB", cpu = "64GiB" }')
    return sizes


Place = Annotated[int, Field(ge=0, strict=True)] | Literal["cpu", "disk"]
"""Of weights: the number of an accelerator, main memory, or files."""


DEFAULT_EPOCHS = 3.0
"""How long a stage is whose recipe does not say."""


class Training(Watching):
    """What a stage's ``[training]`` table may say.

    The result depends on ``batch_size`` or ``batch_tokens``, never on how the batch is cut: ``micro_batch_size``,
    ``micro_batch_tokens`` and the number of processes only decide how many rows one device holds at a time.
    """

    MOVED: ClassVar[Mapping[str, str]] = {
        f"adam_{key}": f'it is the optimizer\'s own: write optimizer = {{ use = "adamw", {key} = ... }}'
        for key in ("beta1", "beta2", "epsilon")
    } | {
        "tensor_parallel": 'there is none: sharding = "full" divides every weight among the processes, and device_map '
        "the layers among devices",
    }
    """Keys that have gone elsewhere, each with the mend."""

    epochs: float | None = Field(
        default=None, gt=0, description="Passes over the stage's training rows; 3 where `steps` is not given either."
    )
    steps: int | None = Field(default=None, gt=0, description="Optimizer steps, in place of `epochs`.")
    batch_size: int = Field(default=8, gt=0, description="Rows per optimizer step, over all processes.")
    batch_tokens: int | None = Field(
        default=None,
        gt=0,
        description="Tokens per optimizer step, in place of `batch_size`: the rows of an epoch are divided into the "
        "fewest steps that have at most so many on average, all about equally many.",
    )
    micro_batch_size: int | None = Field(
        default=None, gt=0, description="Rows per forward pass on one device; lower it where memory is short."
    )
    micro_batch_tokens: int | None = Field(
        default=None,
        gt=0,
        description="With `batch_tokens`: tokens per forward pass on one device, padding counted; "
        "a longer row goes alone.",
    )
    group_by_length: bool = Field(
        default=False, description="Rows of near length go into the same step, which saves padding."
    )
    optimizer: Optimizer = Field(
        default=Adamw(), description="How gradients become steps; a name, or a table with `use` and its options."
    )
    learning_rate: float = Field(default=2e-4, gt=0, description="Peak learning rate.")
    schedule: AnySchedule = Field(
        default=Linear(), description="The rate's course after warm-up; a name, or a table with `use` and its options."
    )
    warmup: float = Field(
        default=0.03, ge=0, lt=1, description="Share of the stage's steps in which the rate rises from zero."
    )
    warmup_steps: int | None = Field(default=None, ge=0, description="The same in steps, in place of `warmup`.")
    weight_decay: float = Field(
        default=0.0, ge=0, description="Decoupled weight decay; never on norms, biases and embeddings."
    )
    max_grad_norm: float = Field(default=1.0, ge=0, description="The gradient's L2 norm is clipped to this; 0: never.")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto", description="Type of the matrix products; auto: bf16 where the hardware has it, else fp32."
    )
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2", "flash_attention_3"] = Field(
        default="auto", description="How attention is computed in training; auto: as the model was loaded."
    )
    dropout: float | None = Field(
        default=None, ge=0, lt=1, description="Every dropout probability of the model, in training; unset: its own."
    )
    neftune_noise: float | None = Field(
        default=None, gt=0, description="Noise on embeddings in training (NEFTune's alpha): 5, 10 or 15 is usual."
    )
    compile: bool = Field(
        default=False, description="Run training through torch.compile: a wait at the first step, then faster ones."
    )
    sharding: Literal["none", "full"] = Field(
        default="none",
        description="How the model lies on several processes: whole on each, or divided among them with its gradients "
        "and the optimizer's state.",
    )
    device_map: Literal["none", "auto", "sequential"] | dict[str, Place] = Field(
        default="none",
        description="Where the model's layers lie in one process: auto, evenly over all accelerators; sequential, the "
        "first filled first; in both what finds no room in main memory, then on disk. Or a table from names of modules "
        'to the number of an accelerator, "cpu" or "disk"; what it does not name lies on the first.',
    )
    max_memory: Annotated[dict[str, str], AfterValidator(_limit)] | None = Field(
        default=None,
        description='With device_map = "auto" or "sequential": the most that weights may take of each accelerator, by '
        "its number, and of main memory, `cpu`; others are not used. Unset: four fifths of what is free on each.",
    )
    gradient_checkpointing: bool = Field(
        default=False, description="Recompute activations in the backward pass: less memory, about a third more time."
    )
    loss_chunks: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        default="auto",
        description="Pieces in which the loss makes its logits, each freed before the next; 1: all at once; auto: as "
        "many as keep a piece under 33 million logits.",
    )
    label_smoothing: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of each target spread evenly over all classes, in training alone; 0.1 is usual.",
    )
    checkpoint_every: int = Field(
        default=200, ge=0, description="Optimizer steps between checkpoints; 0: only at the end."
    )
    keep_checkpoints: int = Field(
        default=2, gt=0, description="How many checkpoints of the running stage stay on disk."
    )
    log_every: int = Field(default=10, gt=0, description="Optimizer steps between reports of loss and speed.")

    @property
    def batch(self) -> str:
        """The size of a step in words."""
        return f"{self.batch_size} rows" if self.batch_tokens is None else f"{self.batch_tokens:,} tokens"

    def warmup_of(self, steps: int) -> int:
        """The steps of warm-up in a stage of ``steps``."""
        return round(self.warmup * steps) if self.warmup_steps is None else self.warmup_steps

    def rate_share(self, step: int, steps: int) -> float:
        """The share of ``learning_rate`` at which a step, from 0, of ``steps`` is taken."""
        warmup = self.warmup_of(steps)
        return step / max(1, warmup) if step < warmup else self.schedule.share(step, steps, warmup)

    def needs(self) -> Mapping[str, str]:
        """The capabilities that the stage's choices must provide for these options, by the option."""
        given = {"loss_chunks": self.loss_chunks != "auto", "label_smoothing": self.label_smoothing > 0}
        return {key: key.replace("_", "-") for key, acts in given.items() if acts}

    @model_validator(mode="after")
    def _one_length(self) -> Training:
        if self.epochs is not None and self.steps is not None:
            raise ValueError("give `epochs` or `steps`, not both")
        return self

    @model_validator(mode="after")
    def _one_size(self) -> Training:
        if self.batch_tokens is None and self.micro_batch_tokens is not None:
            raise ValueError("`micro_batch_tokens` goes with `batch_tokens`; for rows there is `micro_batch_size`")
        if self.batch_tokens is not None and self.micro_batch_size is not None:
            raise ValueError("`micro_batch_size` goes with `batch_size`; for tokens there is `micro_batch_tokens`")
        if self.batch_tokens is not None and "batch_size" in self.model_fields_set:
            raise ValueError("give `batch_size` or `batch_tokens`, not both")
        return self

    @model_validator(mode="after")
    def _something_to_limit(self) -> Training:
        if self.max_memory is not None and self.device_map not in ("auto", "sequential"):
            raise ValueError('`max_memory` goes with `device_map = "auto"` or `"sequential"`')
        return self

    @model_validator(mode="after")
    def _narrow_enough(self) -> Training:
        if "flash" in self.attention and self.precision == "fp32":
            raise ValueError(f'`attention = "{self.attention}"` computes in bf16 or fp16, and `precision` is "fp32"')
        return self

    @model_validator(mode="after")
    def _one_warmup_that_ends(self) -> Training:
        if self.warmup_steps is not None and "warmup" in self.model_fields_set:
            raise ValueError("give `warmup` or `warmup_steps`, not both")
        if self.steps is not None and self.warmup_of(self.steps) >= self.steps:
            raise ValueError(f"a warm-up of {self.warmup_of(self.steps)} steps leaves none of {self.steps} at the peak")
        decay = self.schedule.decay if isinstance(self.schedule, Wsd) else 0
        if self.warmup_steps is None and self.warmup + decay > 1:
            raise ValueError(f"`warmup` of {self.warmup:g} and `schedule.decay` of {decay:g} are more than all steps")
        return self
