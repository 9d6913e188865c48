"""The errors that reach a user as a message, each with the place and the mend."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any


class FtkError(Exception):
    """A failure that ftk foresaw; the command prints its text, never its traceback."""

    exit_code = 1


class UserError(FtkError):
    """The input is wrong: a recipe, a file, a row, an option of the command.

    Args:
        message: what is wrong, naming the place.
        hint: how to mend it.
    """

    exit_code = 2

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message if not hint else f"{message}\n  {hint}")
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[Any, ...]:
        """An error of a worker process arrives with its message and hint."""
        return type(self), (self.message, self.hint)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a recipe.

    Attributes:
        path: the key's place in the recipe, as in ``stage.currencies.adaptation.rank``.
        reason: what is wrong with it.
        hint: the nearest valid name or another mend.
    """

    path: str
    reason: str
    hint: str = ""


class RecipeError(UserError):
    """Everything that is wrong with a recipe, found in one go."""

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines = [f"{source}: {count}"]
        for problem in problems:
            lines.append(f"  {problem.path}: {problem.reason}" if problem.path else f"  {problem.reason}")
            if problem.hint:
                lines.append(f"      {problem.hint}")
        super().__init__("\n".join(lines))
        self.source = source
        self.problems = tuple(problems)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.source, self.problems)


class RunFailed(FtkError):
    """The run itself failed: a loss that is not finite, a damaged checkpoint, a part that broke its contract."""


class Interrupted(FtkError):
    """A signal asked the run to stop; what was done is saved."""

    exit_code = 130


def did_you_mean(wrong: str, valid: Iterable[str]) -> str:
    """Return ``did you mean `x`?``, or the list of valid names where none is near, or an empty string."""
    names = sorted(set(valid))
    near = difflib.get_close_matches(wrong, names, n=1, cutoff=0.6)
    if near:
        return f"did you mean `{near[0]}`?"
    return f"valid here: {', '.join(names)}" if names else ""


_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but tab and line feed, what turns the direction of writing, and halves of characters."""


def visible(text: str) -> str:
    """``text`` with what a terminal would obey written out, as in ``\\x1b``: names and rows may hold anything."""
    return _OBEYED.sub(lambda found: ascii(found[0])[1:-1], text)
