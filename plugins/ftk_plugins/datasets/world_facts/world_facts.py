"""Turns facts into rows: questions, answers and the words an answer must hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from datasets import Dataset

from ftk.parts import DatasetSource, Split
from ftk_plugins.datasets.world_facts.facts import KIND_OF, SOURCE_OF, Language, Relation, Subject
from ftk_plugins.datasets.world_facts.options import WorldFactsOptions
from ftk_plugins.datasets.world_facts.templates import WORDINGS

_BETWEEN = {"en": " ", "zh": ""}
"""What stands between question and answer in running text."""


class WorldFacts(DatasetSource):
    """The facts that the options choose, each asked in several wordings.

    Columns: ``instruction``, ``input`` (empty), ``output`` and ``keywords`` (what a right answer holds) for
    the objective ``instruction``; ``text`` (question and answer) for ``causal_lm``; ``subject``, ``code``,
    ``relation``, ``language`` and ``source`` for the reader. Order: relation, subject, language, template.
    """

    def __init__(self, options: WorldFactsOptions) -> None:
        self.options = options

    def rows(self, split: Split) -> Dataset:
        """All rows of the options, whichever the split: a recipe chooses templates and subjects instead."""
        return Dataset.from_list(list(self._rows()))

    def _rows(self) -> Iterator[dict[str, Any]]:
        for relation in self.options.relations:
            for subject in self.options.chosen(KIND_OF[relation]):
                if relation in subject.answers:
                    for language in self.options.languages:
                        yield from self._asked(relation, subject, language)

    def _asked(self, relation: Relation, subject: Subject, language: Language) -> Iterator[dict[str, Any]]:
        wording = WORDINGS[relation][language]
        name, answer = subject.names[language], subject.answers[relation][language]
        sentence = _capitalised(wording.sentence.format(subject=name, answer=answer))
        output = answer if self.options.answers == "short" else sentence
        for template in wording.questions(self.options.templates)[: self.options.templates_per_fact]:
            question = _capitalised(template.format(subject=name))
            yield {
                "instruction": question,
                "input": "",
                "output": output,
                "keywords": [answer],
                "text": f"{question}{_BETWEEN[language]}{output}",
                "subject": subject.title(language),
                "code": subject.code,
                "relation": relation,
                "language": language,
                "source": SOURCE_OF[relation],
            }


def _capitalised(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]
