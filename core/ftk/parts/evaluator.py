"""Measurements of one task."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from ftk.parts.part import Part

if TYPE_CHECKING:
    from ftk.parts.context import Context
    from ftk.parts.examples import Task


@dataclass(frozen=True, slots=True)
class Metric:
    """One measured number of one task."""

    name: str
    value: float
    higher_is_better: bool


class Evaluator(Part):
    """A measurement of one task."""

    @abstractmethod
    def measure(self, model: nn.Module, task: Task, ctx: Context) -> list[Metric]:
        """Measure ``model`` (in ``eval`` mode, under ``no_grad``) on ``task.test``."""
