"""The objective `preference`: of two answers to a prompt the model comes to prefer the chosen one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, logsigmoid

from ftk import UserError
from ftk.parts import Batch, Context, Features, Head, Loss, Objective, Predictions, Row, evaluated
from ftk_plugins.objectives.instruction.instruction import Instruction
from ftk_plugins.objectives.instruction.options import InstructionOptions
from ftk_plugins.objectives.preference.options import PreferenceOptions
from ftk_plugins.objectives.preference.pairs import as_instructions
from ftk_plugins.objectives.token_loss import IGNORED, sums_of_rows, target_logits

SIDES = ("chosen", "rejected")


class Preference(Objective):
    """Direct preference optimization (DPO) and identity preference optimization (IPO).

    The reference of both is the model as the stage began, which the adaptation recovers: there is no second model.
    """

    def __init__(self, options: PreferenceOptions) -> None:
        self.options = options
        shared = {name: getattr(options, name) for name in ("template", "chat_template", "system")}
        self._answers = Instruction(
            InstructionOptions(**shared, max_length=options.max_length, long_rows=options.long_rows)
        )

    @property
    def head(self) -> Head:
        return Head("causal_lm")

    def texts(self, row: Row) -> Iterator[str]:
        """The prompt and the chosen answer, then the rejected one."""
        chosen, rejected = as_instructions(row)
        yield from self._answers.texts(chosen)
        yield self._answers.answer(rejected)

    def encode(self, row: Row, processor: Any) -> Features:
        """Both sides one after the other: ``input_ids`` and ``labels`` ``(time,) int32``, and where the second begins.

        ``split`` is ``(1,) int32``. Labels are -100 outside the two answers.
        """
        pairs = [self._parts(each, processor) for each in as_instructions(row)]
        (one, chosen), (other, rejected) = pairs
        start = len(self._answers.codec(processor).start)  # stays where the prompt of a long row loses its beginning
        shared = min(len(one), len(other)) - start
        if one[len(one) - shared :] != other[len(other) - shared :]:
            raise UserError(
                "the two conversations differ before their last answers", "give both answers to one and the same prompt"
            )
        if chosen == rejected:
            raise UserError("the chosen answer and the rejected one are the same", "remove the row")
        prompt = min(one, other, key=len)
        ids = [*prompt, *chosen, *prompt, *rejected]
        labels = [token for answer in (chosen, rejected) for token in [*[IGNORED] * len(prompt), *answer]]
        return {
            "input_ids": np.array(ids, np.int32),
            "labels": np.array(labels, np.int32),
            "split": np.array([len(prompt) + len(chosen)], np.int32),
        }

    def collate(self, items: Sequence[Features]) -> Batch:
        """Pad on the right into ``input_ids`` and ``labels``, ``(rows, 2, time) int64``: chosen, then rejected.

        A row is one target.
        """
        cuts = [[slice(0, int(item["split"][0])), slice(int(item["split"][0]), None)] for item in items]
        longest = max(len(item["labels"][cut]) for item, pair in zip(items, cuts, strict=True) for cut in pair)
        inputs = {
            "input_ids": np.zeros((len(items), 2, longest), np.int64),
            "labels": np.full((len(items), 2, longest), IGNORED, np.int64),
        }
        for row, (item, pair) in enumerate(zip(items, cuts, strict=True)):
            for side, cut in enumerate(pair):
                for name, into in inputs.items():
                    values = item[name][cut]
                    into[row, side, : len(values)] = values
        tokens = sum(len(item["input_ids"]) for item in items)
        return Batch({name: torch.from_numpy(array) for name, array in inputs.items()}, len(items), tokens)

    def loss(self, model: nn.Module, batch: Batch, ctx: Context) -> Loss:
        """``−log σ(β h)`` (DPO, eq. 7) or ``(h − 1/(2β))²`` (IPO, eq. 17), summed over the rows, in float32.

        ``h`` is by how much more than the reference the model prefers the chosen answer: the difference of the
        differences of log-likelihoods; with IPO, of their means over an answer's tokens. With ``label_noise = ε`` it
        is ``(1 − ε)`` of that and ``ε`` of the same at ``−h`` (conservative DPO, Mitchell 2023, eq. 3).

        ``outputs`` carries ``margins`` ``(rows,) float32``, the ``h``, with their graph.
        """
        with torch.no_grad(), _reference(ctx):
            reference, _ = self._log_likelihoods(ctx.model, batch)
        policy, chosen_nll = self._log_likelihoods(model, batch)
        margins = (policy - reference) @ policy.new_tensor([1.0, -1.0])
        losses = torch.lerp(self._loss_of(margins), self._loss_of(-margins), self.options.label_noise)
        total = losses.sum() + self.options.chosen_weight * chosen_nll.sum()
        return Loss(total, batch.count, {"margins": margins})

    def predict(self, model: nn.Module, batch: Batch, ctx: Context) -> Predictions:
        """The log-likelihoods of both answers as logits of two classes, of which the first is right.

        With IPO they are means over an answer's tokens.
        """
        values, _ = self._log_likelihoods(model, batch)
        return Predictions("classes", values, torch.zeros(len(values), dtype=torch.long), SIDES)

    def prompt(self, row: Row, processor: Any) -> list[int]:
        return self._answers.prompt(as_instructions(row)[0], processor)

    def answer(self, row: Row) -> str:
        """The chosen answer."""
        return self._answers.answer(as_instructions(row)[0])

    def _parts(self, row: Row, processor: Any) -> tuple[list[int], list[int]]:
        """The token ids of a conversation before its last answer, and of that answer."""
        ids = self._answers.encode(row, processor)["input_ids"].tolist()
        length = len(self._answers.prompt(row, processor))
        return ids[:length], ids[length:]

    def _loss_of(self, margins: Tensor) -> Tensor:
        beta = self.options.beta
        return -logsigmoid(beta * margins) if self.options.method == "dpo" else (margins - 1 / (2 * beta)) ** 2

    def _log_likelihoods(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Of both answers of each row: the method's log-likelihood ``(rows, 2)``, and the chosen one's mean NLL."""
        flat = replace(batch, inputs={name: tensor.flatten(0, 1) for name, tensor in batch.inputs.items()})
        logits, labels = target_logits(model, flat)
        nats = cross_entropy(logits.float(), labels, reduction="none")
        is_target = flat.inputs["labels"][:, 1:] != IGNORED
        sums = sums_of_rows(nats, is_target).view(-1, 2)
        means = sums / is_target.sum(dim=1).view(-1, 2)
        return -(means if self.options.method == "ipo" else sums), means[:, 0]


@contextmanager
def _reference(ctx: Context) -> Iterator[None]:
    """Within it the model is the one that the stage began with, without dropout; before any stage, as it is."""
    with evaluated(ctx.model), nullcontext() if ctx.adaptation is None else ctx.adaptation.reference():
        yield
