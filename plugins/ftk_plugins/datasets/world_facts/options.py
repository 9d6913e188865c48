"""What a recipe may say about `world_facts`."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from ftk import Options, did_you_mean
from ftk_plugins.datasets.world_facts.facts import (
    KIND_OF,
    LANGUAGES,
    PLURAL,
    RELATIONS,
    Kind,
    Language,
    Relation,
    Subject,
    all_subjects,
    find_subject,
)
from ftk_plugins.datasets.world_facts.templates import WORDINGS, Templates


def _listed(value: Any) -> Any:
    """A text on its own is a list of one."""
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


class WorldFactsOptions(Options):
    """Which facts, asked how. The same options always give the same rows in the same order."""

    relations: Annotated[
        tuple[Relation, ...],
        BeforeValidator(_listed, json_schema_input_type=Relation | list[Relation]),
        Field(min_length=1, description="One relation or a list of them: what is asked about each subject."),
    ] = RELATIONS
    languages: Annotated[
        tuple[Language, ...],
        BeforeValidator(_listed, json_schema_input_type=Language | list[Language]),
        Field(min_length=1, description="One language or a list of them, for questions and answers."),
    ] = LANGUAGES
    templates: Templates = Field(
        default="train",
        description="Which wordings ask: those for training, those held out to measure with, or both.",
    )
    templates_per_fact: int | None = Field(
        default=None,
        gt=0,
        description="How many of these wordings ask for each fact, the first ones; unset: all of them.",
    )
    answers: Literal["short", "sentence"] = Field(
        default="short",
        description='The bare answer ("Paris") or a full sentence ("The capital of France is Paris.").',
    )
    subjects: Annotated[
        tuple[str, ...],
        BeforeValidator(_listed, json_schema_input_type=str | list[str]),
        Field(description="Only these countries and elements, by name, ISO 3166-1 code or symbol; empty: all."),
    ] = ()
    shuffle_seed: int | None = Field(
        default=None,
        description="Seed that shuffles the subjects before `offset` and `limit` count; unset: as listed.",
    )
    offset: int = Field(default=0, ge=0, description="How many subjects to skip, of countries and of elements each.")
    limit: int | None = Field(
        default=None,
        gt=0,
        description="How many subjects to take, of countries and of elements each; unset: all that are left.",
    )

    @model_validator(mode="after")
    def _possible(self) -> WorldFactsOptions:
        for name in ("relations", "languages"):
            twice = [value for value, count in Counter(getattr(self, name)).items() if count > 1]
            if twice:
                raise ValueError(f"`{name}` lists {twice[0]!r} twice")
        self._check_templates()
        self._check_subjects()
        if not any(r in subject.answers for r in self.relations for subject in self.chosen(KIND_OF[r])):
            raise ValueError(f"there is no undisputed {' or '.join(self.relations)} for the chosen `subjects`")
        return self

    def _check_templates(self) -> None:
        wanted = self.templates_per_fact or 1
        for relation in self.relations:
            for language in self.languages:
                there = len(WORDINGS[relation][language].questions(self.templates))
                if wanted > there:
                    raise ValueError(
                        f"`templates_per_fact` is {wanted}, but `templates` = {self.templates!r} "
                        f"gives {there} for {relation} in {language!r}"
                    )

    def _check_subjects(self) -> None:
        kinds = {KIND_OF[relation] for relation in self.relations}
        named = [self._named(text, kinds) for text in self.subjects]
        for subject in named:
            if named.count(subject) > 1:
                raise ValueError(f"`subjects` names {subject.title('en')} twice")
        for kind in sorted(kinds):
            there, things = len(self._ordered(kind)), PLURAL[kind]
            if not there:
                raise ValueError(f"`subjects` names no {kind}, yet `relations` asks about {things}")
            if self.offset >= there:
                raise ValueError(f"`offset` {self.offset} leaves none of the {there} {things}")
            if self.limit is not None and self.offset + self.limit > there:
                raise ValueError(
                    f"`limit` {self.limit} after `offset` {self.offset} asks for too much: "
                    f"{there - self.offset} of the {there} {things} are left"
                )

    @staticmethod
    def _named(text: str, kinds: set[Kind]) -> Subject:
        subject = find_subject(text)
        if subject is None:
            known = [known.title("en") for kind in sorted(kinds) for known in all_subjects(kind)]
            near = did_you_mean(text, known)
            hint = near if near.startswith("did you") else "give a name, an ISO 3166-1 code or a symbol"
            raise ValueError(f"`subjects`: nothing is known of {text!r}; {hint}")
        if subject.kind not in kinds:
            article = "an" if subject.kind == "element" else "a"
            raise ValueError(f"`subjects`: {text!r} is {article} {subject.kind}, and `relations` asks about none")
        return subject

    def chosen(self, kind: Kind) -> list[Subject]:
        """The countries or elements that the rows are about, in order."""
        end = None if self.limit is None else self.offset + self.limit
        return self._ordered(kind)[self.offset : end]

    def _ordered(self, kind: Kind) -> list[Subject]:
        named = [find_subject(text) for text in self.subjects]
        found = [subject for subject in all_subjects(kind) if not named or subject in named]
        if self.shuffle_seed is not None:
            found.sort(key=lambda subject: _lot(self.shuffle_seed, subject))
        return found


def _lot(seed: int | None, subject: Subject) -> bytes:
    """A subject's place in a shuffled order: the same on every machine, whichever others there are."""
    return hashlib.sha256(f"{seed} {subject.code}".encode()).digest()
