"""The options of `distill`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ftk import Options
from ftk_plugins.mitigations.share_options import Share, even_share


class DistillOptions(Options):
    """On which rows the starting model is asked, how near its answers must stay, and how it is asked."""

    rows: Literal["new", "retained", "both"] = Field(
        default="new",
        description="Where the starting model is asked: on the rows that the stage teaches, as in the paper; on rows "
        "of earlier tasks, which it mixes in; or on both.",
    )
    weight: float = Field(default=1.0, gt=0, description="Weight of the divergence beside the loss of a target.")
    temperature: float = Field(
        default=2.0, gt=0, description="Divides the logits of both before the softmax: the higher, the flatter."
    )
    divergence: Literal["forward_kl", "reverse_kl", "jensen_shannon"] = Field(
        default="forward_kl",
        description="forward_kl: the model covers all that it held possible; reverse_kl: it keeps to what it held "
        "likely; jensen_shannon: between the two.",
    )
    teacher: Literal["auto", "live", "cached"] = Field(
        default="auto",
        description="live: the starting model reads each batch anew, inside the model under training; cached: it reads "
        "every row once, before the first step; auto: live where the adaptation can go back to the start.",
    )
    top_k: int = Field(
        default=64, gt=0, description="Likeliest tokens that are kept of a vocabulary at each target, where cached."
    )
    share: Share = Field(
        default=0.1,
        description="Share of the final training mix that is earlier rows, where there are some; or how it changes "
        "over the stage, as in { start = 0.3, end = 0.05, over = 0.5 }.",
    )
    buffer_size: int | Literal["all"] = Field(
        default=500, description='Earlier rows kept of each task, drawn at random once; "all" keeps every row.'
    )
    label_weight: float = Field(
        default=0.0, ge=0, description="Weight of the earlier rows' own loss, that of their labels; 0: it is left out."
    )
    tasks: tuple[str, ...] = Field(
        default=(),
        description="Earlier tasks whose rows, and whose heads, are asked, by the names of their stages, or `retain`; "
        "all where none is named.",
    )

    @model_validator(mode="after")
    def _acts(self) -> DistillOptions:
        # A run's folder writes all options down: what says no more than the default was not asked for.
        given = {name for name, field in type(self).model_fields.items() if getattr(self, name) != field.default}
        if isinstance(self.buffer_size, int) and self.buffer_size < 1:
            raise ValueError('buffer_size must be 1 or more, or "all"')
        if self.rows == "new" and (idle := sorted(given & {"share", "buffer_size", "label_weight"})):
            raise ValueError(f'{", ".join(idle)}: of earlier rows, and rows = "new" mixes none in; set rows = "both"')
        if self.teacher == "live" and "top_k" in given:
            raise ValueError('top_k: of what is kept, and teacher = "live" keeps nothing; leave it out')
        return self

    def more_needs(self) -> tuple[str, ...]:
        new = () if self.rows == "retained" else ("target-logits",)
        told = () if self.tasks else ("earlier-target-logits",)
        earlier = () if self.rows == "new" else ("earlier-data", *told)
        return (*new, *earlier, *(("reference",) if self.teacher == "live" else ()))

    def earlier_tasks(self) -> tuple[str, ...]:
        return self.tasks

    def data_share(self) -> float:
        return 0.0 if self.rows == "new" else even_share(self.share)
