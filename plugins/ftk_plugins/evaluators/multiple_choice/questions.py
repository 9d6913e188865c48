"""Rows of every usual shape as questions: what the model reads, the choices, and which is right."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from string import ascii_uppercase as LETTERS
from typing import Any

import numpy as np

from ftk import UserError
from ftk.parts import Row, derive_seed
from ftk_plugins.evaluators.multiple_choice.options import ANSWER, CHOICES, QUESTION, MultipleChoiceOptions
from ftk_plugins.objectives.instruction.options import placeholders
from ftk_plugins.objectives.tokens import columns_of, text_of


@dataclass(frozen=True, slots=True)
class Question:
    """One row.

    Attributes:
        prompt: what the model reads.
        choices: the texts of the choices.
        endings: what is scored of each, without the separator.
        right: the place of the right one, from 0.
    """

    prompt: str
    choices: tuple[str, ...]
    endings: tuple[str, ...]
    right: int


class Reader:
    """Reads rows as the options say."""

    def __init__(self, options: MultipleChoiceOptions) -> None:
        self.options = options

    def questions(self, rows: Iterable[Row], origin: str) -> list[Question]:
        """Each row as a question.

        Raises:
            UserError: a row is none; names the origin and the row, counted from 1.
        """
        found = []
        for number, row in enumerate(rows, start=1):
            try:
                found.append(self._question(row))
            except UserError as error:
                raise UserError(f"{origin}, row {number}: {error.message}", error.hint) from error
        return found

    def texts(self, row: Row) -> Iterator[str]:
        """The question, if the row has one, and the choices."""
        for name in (self.options.question,) if self.options.question else QUESTION:
            if text := text_of(row, name):
                yield text
        column = _column(row, self.options.choices, CHOICES, "choices")
        yield from _choices(row[column], column)[0]

    def _question(self, row: Row) -> Question:
        options = self.options
        column = _column(row, options.choices, CHOICES, "choices")
        choices, labels = _choices(row[column], column)
        place = _column(row, options.answer, ANSWER, "answer")
        right = _right(row[place], place, choices, labels, options.answer_is)
        if options.scored == "letter" and len(choices) > len(LETTERS):
            raise UserError(f"there are {len(choices)} choices and {len(LETTERS)} letters", 'write scored = "text"')
        endings = choices if options.scored == "text" else tuple(LETTERS[: len(choices)])
        return Question(self._prompt(row, choices), choices, endings, right)

    def _prompt(self, row: Row, choices: Sequence[str]) -> str:
        template = self.options.template
        if template is None and self.options.scored == "letter":
            template = "{question}\n{choices}\nAnswer:"
        elif template is None:
            asked = _column(row, self.options.question, QUESTION, "question")
            template = "{question}" if asked == "ctx" else "Question: {question}\nAnswer:"
        return template.format(**{name: self._filled(row, name, choices) for name in placeholders(template)})

    def _filled(self, row: Row, name: str, choices: Sequence[str]) -> str:
        if name == "choices":
            return "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False))
        column = _column(row, self.options.question, QUESTION, "question") if name == "question" else name
        text = text_of(row, column)
        if text is None:
            raise UserError(f"the template names `{column}`, and the row has {columns_of(row)}", "change `template`")
        return text


def with_shots(
    questions: Sequence[Question],
    pool: Sequence[Question] | None,
    options: MultipleChoiceOptions,
    origin: str = "",
) -> list[str]:
    """What the model reads before the choices of each question: examples drawn for it, and its own prompt.

    The draw depends on the number of the row alone, so that it is the same in every measurement and every run.

    Args:
        questions: those that are asked.
        pool: what examples are drawn from; None: the other questions.
        options: how many examples, and how they are joined.
        origin: where the rows come from that are drawn from, for the error.

    Raises:
        UserError: there are too few to draw from.
    """
    if not options.shots:
        return [question.prompt for question in questions]
    source = questions if pool is None else pool
    enough = options.shots + (pool is None)
    if len(source) < enough:
        raise UserError(
            f"{origin}: `shots = {options.shots}` needs {enough} rows to draw examples from, and there are "
            f"{len(source)}",
            "lower `shots`, or name a larger data set as `shots_from`",
        )
    told = [f"{one.prompt}{options.separator}{one.endings[one.right]}{options.shots_separator}" for one in source]
    contexts = []
    for number, question in enumerate(questions):
        random = np.random.default_rng(derive_seed(0, "shots", number))
        drawn = random.choice(len(source) - (pool is None), options.shots, replace=False).tolist()
        # Where a question would be its own example, the ones from it on move up by one.
        drawn = [place + (pool is None and place >= number) for place in drawn]
        contexts.append("".join(told[place] for place in drawn) + question.prompt)
    return contexts


def _column(row: Row, named: str | None, usual: Sequence[str], option: str) -> str:
    """The column that an option names, or the first of the usual ones that the row fills."""
    for name in (named,) if named else usual:
        if row.get(name) is not None:
            return name
    wanted = " or ".join(f"`{name}`" for name in ((named,) if named else usual))
    raise UserError(
        f"there is nothing in column {wanted}; the row has {columns_of(row)}",
        f"name the column with the option `{option}` of `multiple_choice`",
    )


def _choices(value: Any, column: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The texts of the choices, and the labels that the row itself gives them."""
    labels: list[Any] = []
    if isinstance(value, dict):
        value, labels = value.get("text"), value.get("label") or []
    if not isinstance(value, list) or len(value) < 2:
        raise UserError(
            f"column `{column}` holds no choices, but {value!r:.80}",
            "it must be a list of two texts or more, or a table of `text` and `label`",
        )
    texts = [text_of({column: text}, column) for text in value]
    if not all(text and text.strip() for text in texts):
        raise UserError(f"a choice in column `{column}` is empty", "fill it in, or remove the row")
    if labels and len(labels) != len(texts):
        raise UserError(f"column `{column}` has {len(texts)} texts and {len(labels)} labels", "mend the row")
    return tuple(str(text) for text in texts), tuple(str(label).strip() for label in labels)


def _right(value: Any, column: str, choices: Sequence[str], labels: Sequence[str], told_by: str) -> int:
    """The place of the right choice, from 0."""
    readings = _readings(value, choices, labels)
    if told_by != "auto":
        found = {readings[told_by]} if told_by in readings else set()
    elif isinstance(value, int):
        found = {readings[kind] for kind in (("letter",) if labels else ("index",)) if kind in readings}
    elif labels and "letter" in readings:
        found = {readings["letter"]}
    else:
        found = {place for kind, place in readings.items() if kind != "number"}
    if len(found) == 1:
        return found.pop()
    if found:
        places = " or ".join(str(place + 1) for place in sorted(found))
        raise UserError(
            f"the answer {value!r} in column `{column}` may mean choice {places} of {len(choices)}",
            'say how it is meant: answer_is = "index" (from 0), "number" (from 1), "letter" or "text"',
        )
    meant = "" if told_by == "auto" else f" by its {told_by}"
    raise UserError(
        f"the answer {value!r:.80} in column `{column}` is none of the {len(choices)} choices{meant}",
        "mend the row, or say how the answer is told with `answer_is`",
    )


def _readings(value: Any, choices: Sequence[str], labels: Sequence[str]) -> dict[str, int]:
    """Which choice an answer is, by each way of telling it that gives one."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return {}
    text = str(value).strip()
    readings: dict[str, int] = {}
    if text.isdecimal():
        readings |= {kind: int(text) - first for kind, first in (("index", 0), ("number", 1))}
    if text:
        readings["letter"] = labels.index(text) if text in labels else -1 if labels else LETTERS.find(text.upper())
    same = [place for place, choice in enumerate(choices) if choice.strip() == text]
    if len(same) == 1:
        readings["text"] = same[0]
    return {kind: place for kind, place in readings.items() if 0 <= place < len(choices)}
