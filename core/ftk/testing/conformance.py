"""Holds a variant to the contract of its kind: one suite for ftk's own variants and everybody else's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ftk.plugin.registry import one_line
from ftk.testing import (
    adaptations,
    comparing,
    declarations,
    evaluators,
    joints,
    merges,
    mitigations,
    objectives,
    predictions,
    scaling,
    sources,
)
from ftk.testing.subject import Subject

Check = Callable[[Subject], None]

_CLAUSES: dict[str, tuple[Check, ...]] = {
    "model": sources.MODEL_CLAUSES,
    "dataset": sources.DATASET_CLAUSES,
    "transform": sources.TRANSFORM_CLAUSES,
    "objective": (*objectives.CLAUSES, *comparing.CLAUSES, *predictions.CLAUSES),
    "adaptation": (*adaptations.CLAUSES, *scaling.CLAUSES),
    "mitigation": mitigations.CLAUSES,
    "evaluator": evaluators.CLAUSES,
    "merge": merges.CLAUSES,
}


def clauses(kind: str, of_others: bool = False) -> tuple[Check, ...]:
    """The clauses of a kind's contract: checks of a subject, whose docstrings say what must hold.

    Args:
        kind: one of :data:`ftk.plugin.variant.KINDS`.
        of_others: whether it is an objective that is made of others.
    """
    return (*declarations.CLAUSES, *(joints.CLAUSES if of_others and kind == "objective" else _CLAUSES[kind]))


@dataclass(frozen=True)
class Case:
    """One clause of the contract, for one variant. As a string, it is a name for pytest's ``ids``."""

    subject: Subject
    clause: Check

    def __str__(self) -> str:
        return f"{self.subject.kind}-{self.subject.use}-{self.clause.__name__}"

    def check(self) -> None:
        """Raise ``AssertionError`` with the clause, and what was found instead, if the variant breaks it."""
        try:
            self.clause(self.subject)
        except Exception as error:
            found = str(error) if isinstance(error, AssertionError) else f"it raised {one_line(error)}"
            raise AssertionError(f"{self._head()}\n  found: {found}") from error

    def _head(self) -> str:
        text = " ".join((self.clause.__doc__ or "").split())
        return f"{self.subject.kind} `{self.subject.use}` breaks `{self.clause.__name__}`: {text}"


def conformance_cases(kind: str, use: str, options: dict[str, Any] | None = None, **around: Any) -> list[Case]:
    """Every clause that the variant must keep, one case each, for ``pytest.mark.parametrize``.

    Args:
        kind: one of :data:`ftk.plugin.variant.KINDS`.
        use: the variant's name, as a recipe writes it.
        options: its options, as a recipe writes them; it must be installed, editable or not.
        around: what :class:`ftk.testing.Subject` takes beside these, where the toys do not fit: ``beside``,
            ``rows``, ``model``, ``processor``.

    For example::

        @pytest.mark.parametrize("case", conformance_cases("objective", "my_objective"), ids=str)
        def test_contract(case):
            case.check()
    """
    subject = Subject(kind, use, options or {}, **around)
    return [Case(subject, clause) for clause in clauses(kind, "tasks" in subject.options)]


def check_variant(kind: str, use: str, options: dict[str, Any] | None = None, **around: Any) -> None:
    """Check every clause at once; the arguments are those of :func:`conformance_cases`.

    Raises:
        AssertionError: naming every clause that is broken, what it says and what was found instead.
    """
    broken: list[AssertionError] = []
    for case in conformance_cases(kind, use, options, **around):
        try:
            case.check()
        except AssertionError as error:
            broken.append(error)
    if broken:
        raise AssertionError("\n".join(str(error) for error in broken)) from broken[0]
