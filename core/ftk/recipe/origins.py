"""Where the stages that sequences made come from, so that what is wrong with one is told where a user wrote it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ftk.errors import Problem

SEQUENCE = "sequence"
"""The key of a recipe, or of a stage, under which a sequence stands."""


@dataclass(frozen=True)
class Made:
    """Where a stage that a sequence made comes from.

    Attributes:
        name: the stage's.
        prefix: the place of the template: empty for the recipe's top, else ``stage.NAME.``.
        taken: places within the stage that hold a value as it is, each with the value's place in the recipe.
    """

    name: str
    prefix: str
    taken: Mapping[str, str]


@dataclass
class Unrolled:
    """A recipe's table whose sequences have become stages.

    Attributes:
        table: without sequences.
        made: the stages that they made.
        problems: what is wrong with the sequences themselves.
        changed: whether settings may have taken the place of what a value fills in.
    """

    table: dict[str, Any]
    made: list[Made] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    changed: bool = False

    def made_of(self, name: str) -> Made | None:
        """Where the stage of this name comes from; None for one that the recipe writes."""
        return next((made for made in self.made if made.name == name), None)

    def told(self, problems: Iterable[Problem]) -> list[Problem]:
        """Problems with the places where a user wrote what is wrong, each once."""
        stages: dict[Problem, list[Made]] = {}
        places: dict[Problem, list[str]] = {}
        for problem in problems:
            made, there = self._back(problem)
            stages.setdefault(there, []).extend([made] if made else [])
            if made and there.path.startswith(f"{made.prefix}{SEQUENCE}."):
                places.setdefault(there, []).append(problem.path.removeprefix(f"stage.{made.name}."))
        told = []
        for problem, of in stages.items():
            names = list(dict.fromkeys(made.name for made in of))
            if problem in places:
                where = f" (as {', '.join(dict.fromkeys(places[problem]))})"
            elif not of or len(names) == sum(made.prefix == of[0].prefix for made in self.made):
                where = ""
            else:
                where = f" (in {'stage' if len(names) == 1 else 'stages'} {', '.join(names)})"
            told.append(replace(problem, reason=problem.reason + where))
        return told

    def _back(self, problem: Problem) -> tuple[Made | None, Problem]:
        """The stage that a problem is of, if a sequence made it, and the problem where a user finds it."""
        for made in self.made:
            inside = f"stage.{made.name}."
            if problem.path.startswith(inside):
                rest = problem.path.removeprefix(inside)
                near = [place for place in made.taken if rest == place or rest.startswith(f"{place}.")]
                if not near:
                    return made, replace(problem, path=f"{made.prefix}{rest}")
                longest = max(near, key=len)
                return made, replace(problem, path=made.taken[longest] + rest.removeprefix(longest))
        return None, problem
