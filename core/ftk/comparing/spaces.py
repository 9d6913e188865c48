"""What a sweep searches: one space for each key, written as ``training.learning_rate=log(1e-5, 1e-3)``."""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ftk.errors import UserError
from ftk.recipe.overrides import steps_of

if TYPE_CHECKING:
    from optuna import Trial

MOST_POINTS = 10_000
"""Of a grid."""

_CALL = re.compile(r"(?P<kind>[a-z]+)\s*\((?P<arguments>.*)\)\s*", re.DOTALL)
_FORMS = "[1, 2, 3], log(1e-3, 10), uniform(0, 1) or int(1, 16); log and uniform take a number of points as a third"


@dataclass(frozen=True)
class Space:
    """The values that one key of the recipe can take.

    Attributes:
        key: the path, as after ``--set``.
        kind: ``choice``, ``log``, ``uniform`` or ``int``.
        choices: of a choice, its values; of a range with a number of points these points; else empty.
        low: of a range, its ends, both included.
        high: the same.
        step: of ``int``, from one value to the next.
    """

    key: str
    kind: str
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    step: int = 1

    @property
    def points(self) -> Sequence[Any]:
        """All values, where they can be counted; empty for a range without a number of points."""
        if self.kind == "int":
            return range(int(self.low), int(self.high) + 1, self.step)
        return self.choices

    @property
    def ends(self) -> tuple[Any, ...]:
        """All values of a choice, both ends of a range."""
        return self.choices or (self.low, self.high)

    def draw(self, trial: Trial) -> Any:
        """A value by the study's sampler."""
        if self.choices:
            return json.loads(trial.suggest_categorical(self.key, [json.dumps(value) for value in self.choices]))
        if self.kind == "int":
            return trial.suggest_int(self.key, int(self.low), int(self.high), step=self.step)
        return trial.suggest_float(self.key, self.low, self.high, log=self.kind == "log")


def read_space(text: str) -> Space:
    """Read ``KEY=SPACE``.

    Raises:
        UserError: it is none; the message names what was written and how a space is written.
    """
    key, equals, written = text.partition("=")
    if not equals:
        raise _refusal(text, "has no `=`")
    steps_of(key)
    written = written.strip()
    call = _CALL.fullmatch(written)
    if call is None:
        return Space(key.strip(), "choice", _list(text, written))
    kind = call["kind"]
    numbers = _numbers(text, call["arguments"])
    if kind not in ("log", "uniform", "int"):
        raise _refusal(text, f"knows no `{kind}`")
    if not 2 <= len(numbers) <= 3:
        raise _refusal(text, f"`{kind}` takes two numbers, and a third if you like")
    low, high, *more = numbers
    if not low < high:
        raise _refusal(text, "the first number must be below the second")
    if kind == "log" and low <= 0:
        raise _refusal(text, "a logarithmic range begins above 0")
    third = more[0] if more else None
    if third is not None and (third != int(third) or third < 1):
        raise _refusal(text, "the third must be a whole number above 0")
    if kind != "int" and third is not None and third > MOST_POINTS:
        raise _refusal(text, f"{MOST_POINTS:,} points are the most")
    if kind == "int":
        if low != int(low) or high != int(high):
            raise _refusal(text, "`int` takes whole numbers")
        return Space(key.strip(), kind, (), int(low), int(high), int(third or 1))
    if third == 1:
        raise _refusal(text, "a range has two points at least")
    return Space(key.strip(), kind, () if third is None else _between(kind, low, high, int(third)), low, high)


def read_spaces(texts: Sequence[str]) -> list[Space]:
    """Read the spaces of a sweep.

    Raises:
        UserError: there are none, or two of one key.
    """
    if not texts:
        raise UserError("a sweep needs something to search", f"write --over KEY=SPACE, with {_FORMS}")
    spaces = [read_space(text) for text in texts]
    seen: set[tuple[str, ...]] = set()
    for space in spaces:
        if (steps := tuple(steps_of(space.key))) in seen:
            raise UserError(f"--over {space.key}: stands twice", "write one space for each key")
        seen.add(steps)
    return spaces


def setting(space: Space, value: Any) -> str:
    """A value as ``key=value`` after ``--set``."""
    return f"{space.key}={_toml(value)}"


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(its)}" for key, its in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


def _list(text: str, written: str) -> tuple[Any, ...]:
    try:
        found = tomllib.loads(f"value = {written}")
    except tomllib.TOMLDecodeError:
        found = {}
    values = found.get("value")
    if len(found) != 1 or not isinstance(values, list) or not values:
        raise _refusal(text, f"`{written}` is no space")
    try:
        shown = [json.dumps(value, allow_nan=False) for value in values]
    except (TypeError, ValueError) as error:  # a date, or a number that is none
        raise _refusal(text, "holds what no option takes") from error
    if len(set(shown)) < len(shown):
        raise _refusal(text, "a value stands twice")
    return tuple(values)


def _numbers(text: str, written: str) -> list[float]:
    try:
        values = tomllib.loads(f"value = [{written}]")["value"]
    except tomllib.TOMLDecodeError as error:
        raise _refusal(text, f"`{written}` are no numbers") from error
    plain = [value for value in values if type(value) in (int, float) and math.isfinite(value)]
    if len(plain) != len(values):
        raise _refusal(text, f"`{written}` are no numbers")
    return plain


def _between(kind: str, low: float, high: float, count: int) -> tuple[float, ...]:
    if kind == "log":
        ratio = math.log(high / low) / (count - 1)
        inner = [float(f"{low * math.exp(ratio * at):.6g}") for at in range(1, count - 1)]
    else:
        inner = [float(f"{low + (high - low) * at / (count - 1):.6g}") for at in range(1, count - 1)]
    return (low, *inner, high)


def _refusal(text: str, reason: str) -> UserError:
    return UserError(f"--over {text}: {reason}", f"a space is {_FORMS}")
