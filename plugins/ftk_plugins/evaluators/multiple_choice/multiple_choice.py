"""Multiple choice: whether the right one of some choices is the likeliest after the question."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from ftk import RunFailed
from ftk.parts import Context, Evaluator, Metric, Row, Task, tested
from ftk_plugins.evaluators.multiple_choice.likelihood import encode_pairs, log_likelihoods
from ftk_plugins.evaluators.multiple_choice.options import MultipleChoiceOptions
from ftk_plugins.evaluators.multiple_choice.questions import Question, Reader, with_shots
from ftk_plugins.evaluators.shares import share

if TYPE_CHECKING:
    from datasets import Dataset


class MultipleChoice(Evaluator):
    """The share of questions whose right choice has the greatest log-likelihood, as it is and by its length."""

    def __init__(self, options: MultipleChoiceOptions) -> None:
        self.options = options
        self._reader = Reader(options)
        self._pool: list[Question] | None = None

    def take(self, sets: Mapping[str, Dataset]) -> None:
        """Take the rows of ``shots_from``, if it is there.

        Raises:
            UserError: a row is no question.
        """
        if "shots_from" in sets:
            self._pool = self._reader.questions(sets["shots_from"], "shots_from")

    def texts(self, row: Row) -> Iterator[str]:
        """The question, and the choices."""
        return self._reader.texts(row)

    def measure(self, model: nn.Module, task: Task, ctx: Context) -> list[Metric]:
        """Measure ``choice_accuracy`` and, where texts are scored, ``choice_accuracy_norm``, 0 to 1.

        Of choices that are as likely, the first counts as chosen.

        Raises:
            UserError: there are no rows, or one of them is no question.
            RunFailed: a log-likelihood is not a finite number.
        """
        examples, options = tested(task), self.options
        questions = self._reader.questions(examples.rows, examples.origin)
        drawn_from = examples.origin if self._pool is None else "`shots_from` of `multiple_choice`"
        contexts = with_shots(questions, self._pool, options, drawn_from)
        pairs = encode_pairs(
            [
                (context, options.separator + ending)
                for context, question in zip(contexts, questions, strict=True)
                for ending in question.endings
            ],
            getattr(ctx.processor, "tokenizer", ctx.processor),
        )
        values = log_likelihoods(pairs, model, ctx, options.batch_size)
        if not np.isfinite(values).all():
            raise RunFailed(f"task `{task.name}`: a log-likelihood is not finite; the model has diverged")
        cuts = list(accumulate(len(question.endings) for question in questions))[:-1]
        by_row = np.split(values, cuts)
        chance = {"chance": float(np.mean([1 / len(question.choices) for question in questions]))}
        right = np.array([question.right for question in questions])

        def metric(name: str, scores: list[np.ndarray]) -> Metric:
            return share(name, np.array([score.argmax() for score in scores]) == right, chance)

        metrics = [metric("choice_accuracy", by_row)]
        if options.scored == "text":
            tokens = np.split(np.array([len(ids) for _, ids in pairs]), cuts)
            lengths = [self._lengths(question) for question in questions] if options.length != "tokens" else tokens
            normed = [values / length for values, length in zip(by_row, lengths, strict=True)]
            metrics.append(metric("choice_accuracy_norm", normed))
        return metrics

    def _lengths(self, question: Question) -> np.ndarray:
        """The length of each choice, ``(choices,) int64``, in the unit that the options name."""
        in_bytes = self.options.length == "bytes"
        return np.array(
            [len(choice.encode(errors="surrogatepass") if in_bytes else choice) for choice in question.choices]
        )
