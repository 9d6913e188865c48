"""Samples: what the model answers to some test rows, the same ones each time."""

from __future__ import annotations

import numpy as np
from torch import nn

from ftk.parts import Context, Evaluator, Metric, Note, Task, tested
from ftk_plugins.evaluators.generation import answers_to
from ftk_plugins.evaluators.samples.options import SamplesOptions


class Samples(Evaluator):
    """Keeps prompt, right answer and the model's answer of some rows in the report; measures nothing."""

    def __init__(self, options: SamplesOptions) -> None:
        self.options = options

    def measure(self, model: nn.Module, task: Task, ctx: Context) -> list[Metric]:
        """No number."""
        return []

    def notes(self, model: nn.Module, task: Task, ctx: Context) -> list[Note]:
        """``samples``: for each chosen row its number from 1, ``prompt``, ``expected`` and ``answer``.

        Raises:
            UserError: there are no test rows, or a chosen one gives no prompt.
        """
        options, examples = self.options, tested(task)
        random = np.random.Generator(np.random.PCG64(options.seed))
        count = min(options.rows, len(examples))
        rows = sorted(random.choice(len(examples), size=count, replace=False).tolist())
        answers = answers_to(rows, model, task, ctx, options.max_new_tokens, options.batch_size)
        told = []
        for index, answer in zip(rows, answers, strict=True):
            row = examples.row(index)
            prompt = ctx.processor.decode(task.objective.prompt(row, ctx.processor), skip_special_tokens=True)
            told.append({"row": index + 1, "prompt": prompt, "expected": task.objective.answer(row), "answer": answer})
        return [Note("samples", {"answers": told})]
