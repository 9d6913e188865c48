"""From a spec of the recipe to the part that it names; what the part needs is imported only here."""

from __future__ import annotations

from typing import TypeVar

from ftk.errors import FtkError, RunFailed, UserError
from ftk.plugin.registry import article, mend, one_line
from ftk.plugin.variant import import_reference
from ftk.recipe.specs import PartSpec

SomePart = TypeVar("SomePart")


def build(spec: PartSpec, kind: type[SomePart]) -> SomePart:
    """Import the part that ``spec`` names and make it.

    Args:
        spec: the part's place in the recipe, with its options.
        kind: what the spec's kind of variant builds.

    Raises:
        UserError: the part, or something it needs, cannot be imported.
        RunFailed: the part raises, or what it builds is not a part of its kind.
    """
    who = f"{spec.path}: `{spec.variant.name}` of {spec.distribution}"
    try:
        part = import_reference(spec.variant.build)(spec.options)
    except FtkError:
        raise
    except (ImportError, AttributeError) as error:
        raise UserError(f"{who} cannot be loaded: {one_line(error)}", mend(spec.distribution)) from error
    except (Exception, SystemExit) as error:
        raise RunFailed(f"{who} cannot be built: {one_line(error)}") from error
    if not isinstance(part, kind):
        raise RunFailed(f"{who} builds {type(part).__name__}, which is not {article(kind.__name__)}")
    if spec.kind == "mitigation" and spec.parts:
        part.take({inside.name: build(inside, object) for inside in spec.parts})  # type: ignore[attr-defined]
    return part


def same_spec(one: PartSpec, other: PartSpec) -> bool:
    """Whether two choices build the same part."""
    return (one.distribution, one.variant.name, one.options) == (
        other.distribution,
        other.variant.name,
        other.options,
    )
