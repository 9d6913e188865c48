"""Keyword accuracy: whether a generated answer holds the words that make it right."""

from __future__ import annotations

from torch import nn

from ftk import UserError
from ftk.parts import Context, Evaluator, Examples, Metric, Task, tested
from ftk_plugins.evaluators.folding import fold, occurs
from ftk_plugins.evaluators.generation import generate_answers
from ftk_plugins.evaluators.keyword_accuracy.options import KeywordAccuracyOptions
from ftk_plugins.evaluators.shares import share_of_all


class KeywordAccuracy(Evaluator):
    """The share of test rows whose generated answer holds the row's keywords."""

    def __init__(self, options: KeywordAccuracyOptions) -> None:
        self.options = options

    def measure(self, model: nn.Module, task: Task, ctx: Context) -> list[Metric]:
        """Measure ``keyword_accuracy``, 0 to 1.

        Raises:
            UserError: there are no test rows, a row has no keywords, or it gives no prompt.
        """
        options = self.options
        keywords = self._keywords(tested(task))
        answers = generate_answers(model, task, ctx, options.max_new_tokens, options.batch_size)
        hits = {index: self._holds(answer, keywords[index]) for index, answer in answers.items()}
        return [share_of_all("keyword_accuracy", hits, ctx)]

    def _holds(self, answer: str, keywords: list[str]) -> bool:
        folded = self._fold(answer)
        found = (occurs(keyword, folded, boundary=self.options.boundary) for keyword in keywords)
        return all(found) if self.options.match == "all" else any(found)

    def _keywords(self, examples: Examples) -> list[list[str]]:
        """The folded keywords of each row."""
        column = self.options.column
        keywords = []
        for number, row in enumerate(examples.rows, start=1):
            value = row.get(column)
            folded = [self._fold(_text(word)) for word in (value if isinstance(value, list) else [value])]
            if not folded or not all(folded):
                raise UserError(
                    f"{examples.origin}, row {number}: column `{column}` holds no keywords, but {value!r}",
                    "`keyword_accuracy` needs a text or a list of texts, none of them empty, in every row;"
                    " its option `column` names another column",
                )
            keywords.append(folded)
        return keywords

    def _fold(self, text: str) -> str:
        return fold(text, case=self.options.fold_case, width=self.options.fold_width)


def _text(keyword: object) -> str:
    """A keyword as text; numbers are written out, what is neither is none."""
    if isinstance(keyword, str | int | float) and not isinstance(keyword, bool):
        return str(keyword)
    return ""
