"""Exact match: whether a generated answer is the row's answer, word for word."""

from __future__ import annotations

from torch import nn

from ftk.parts import Context, Evaluator, Metric, Task, tested
from ftk_plugins.evaluators.exact_match.options import ExactMatchOptions
from ftk_plugins.evaluators.folding import fold
from ftk_plugins.evaluators.generation import generate_answers
from ftk_plugins.evaluators.shares import share_of_all


class ExactMatch(Evaluator):
    """The share of test rows whose generated answer equals the row's, surrounding space aside."""

    def __init__(self, options: ExactMatchOptions) -> None:
        self.options = options

    def measure(self, model: nn.Module, task: Task, ctx: Context) -> list[Metric]:
        """Measure ``exact_match``, 0 to 1.

        Raises:
            UserError: there are no test rows, or one gives no prompt.
        """
        options = self.options
        answers = generate_answers(model, task, ctx, options.max_new_tokens, options.batch_size)
        examples = tested(task)
        hits = {
            index: self._fold(answer) == self._fold(task.objective.answer(examples.row(index)))
            for index, answer in answers.items()
        }
        return [share_of_all("exact_match", hits, ctx)]

    def _fold(self, text: str) -> str:
        return fold(text, case=self.options.fold_case, width=self.options.fold_width)
