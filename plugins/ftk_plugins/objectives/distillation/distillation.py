"""The objective `distillation`: another objective whose loss in training is shared with what a teacher predicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ftk.parts import Batch, Context, Loss, Objective
from ftk_plugins.objectives.chunked import Beside
from ftk_plugins.objectives.distillation.options import VARIANTS, DistillationOptions
from ftk_plugins.objectives.distillation.teacher import hash_of, load_teacher, outline_teacher
from ftk_plugins.objectives.divergence import as_pairs, divergence
from ftk_plugins.objectives.model_inputs import base_model, without_values
from ftk_plugins.objectives.token_loss import logits_by_piece, token_loss
from ftk_plugins.objectives.tokens import TokenObjective

if TYPE_CHECKING:
    from datasets import Dataset


def distilled(options: DistillationOptions) -> Objective:
    """The objective that ``options.of`` names, with a teacher beside what its rows say is right."""
    module, _, name = VARIANTS[options.of.use].build.partition(":")
    inner = getattr(import_module(module), name)
    shared = OfTokens if issubclass(inner, TokenObjective) else OfLabels
    made: Objective = type(f"Distilled{name}", (shared, inner), {})(options)
    return made


class Distillation(Objective):
    """Stands before the class of another objective, whose rows, batches and predictions it leaves as they are.

    As smoothing, the teacher is there in training mode alone: whatever measures a model meets the loss of the other
    objective. The teacher is no part of the model that is trained, saved or exported.
    """

    def __init__(self, options: DistillationOptions) -> None:
        super().__init__(options.of)  # type: ignore[call-arg]
        self.distillation = options
        self._teacher: nn.Module | None = None
        self._hash: str | None = None

    def completed(self, rows: Dataset) -> Mapping[str, Any]:
        values = super().completed(rows)
        return {"of": {**self.distillation.of.model_dump(), **values}} if values else {}

    def identity(self) -> str | None:
        """A hash of the teacher's folder; None of a model on the hub."""
        if self._hash is None:
            self._hash = hash_of(self.distillation)
        return self._hash or None

    def begin(self, ctx: Context) -> None:
        """Load the teacher, once in a process, or see whether it fits; see :mod:`.teacher` for what it raises."""
        student = base_model(ctx.model)
        if without_values(student):
            self._teacher = outline_teacher(self.distillation, self.head, ctx.processor, student)
        elif self._teacher is None or without_values(self._teacher):
            self._teacher = load_teacher(self.distillation, self.head, ctx.processor).to(ctx.device)

    def teacher(self, ctx: Context) -> nn.Module:
        """The teacher, which has no gradients, in ``eval`` mode; loaded where nobody has called :meth:`begin`."""
        if self._teacher is None or without_values(self._teacher) != without_values(base_model(ctx.model)):
            self.begin(ctx)
        assert self._teacher is not None
        return self._teacher

    def apart(self, student: Tensor, teacher: Tensor) -> Tensor:
        """How far the student's logits ``(targets, classes)`` are from the teacher's: ``(targets,) float32``.

        The classes are those that both have: models of one family fill their vocabulary up to different sizes.
        """
        both = min(student.shape[-1], teacher.shape[-1])
        options = self.distillation
        return divergence(student[..., :both], teacher[..., :both], options.temperature, options.divergence)


class OfTokens(Distillation, TokenObjective):
    """Distils predictions of tokens."""

    def loss(self, model: nn.Module, batch: Batch, ctx: Context) -> Loss:
        """As the other objective's; in training mode ``weight`` of it is ``T²`` times the divergence from the teacher.

        Where the loss is computed in chunks, so are the teacher's logits.
        """
        if not model.training:
            return super().loss(model, batch, ctx)
        taught = logits_by_piece(self.teacher(ctx), batch, ctx, self.shift)
        beside = Beside(self.distillation.weight, lambda logits, piece: self.apart(logits, taught(piece)))
        return token_loss(model, batch, ctx, self.shift, self._router_loss, beside)


class OfLabels(Distillation):
    """Distils predictions of labels."""

    def loss(self, model: nn.Module, batch: Batch, ctx: Context) -> Loss:
        """As the other objective's; in training mode ``weight`` of it is ``T²`` times the divergence from the teacher.

        Of several labels in one row, each is a yes or no of its own, and the mean of their divergences counts.
        """
        loss = super().loss(model, batch, ctx)  # type: ignore[safe-super]
        if not model.training:
            return loss
        with torch.no_grad():
            taught = super().loss(self.teacher(ctx), batch, ctx).outputs["logits"]  # type: ignore[safe-super]
        logits = loss.outputs["logits"]
        if getattr(self.distillation.of, "kind", "single") == "multiple":
            apart = self.apart(as_pairs(logits), as_pairs(taught)).mean(1)
        else:
            apart = self.apart(logits, taught)
        return replace(loss, total=torch.lerp(loss.total, apart.sum(), self.distillation.weight))
