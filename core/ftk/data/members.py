"""The rows of the tasks that one stage teaches: which of the mixed rows are each one's, and how often they come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ftk.data.roles import RoleRows
from ftk.data.rows import Rows
from ftk.data.steps import told
from ftk.errors import UserError
from ftk.parts import DataMix
from ftk.recipe.building import build
from ftk.recipe.members import TaskSpec
from ftk.recipe.naming import stage_of
from ftk.recipe.specs import PartSpec


def divided(specs: Sequence[TaskSpec], rows: Sequence[Rows]) -> list[Rows]:
    """The rows of tasks of a run, those of several in one stage as its mixtures have them.

    A mixture's order says which rows of its parts are used and how often. Rows that parts keep back for validation or
    testing are all measured, once, as in any mixture.

    Args:
        specs: the tasks, all of the run.
        rows: of each, all that its parts have.

    Raises:
        UserError: a mixture cannot be made; or two tasks of a stage would share the head of their labels unasked.
    """
    found = list(rows)
    stages = [stage_of(spec.name) for spec in specs]
    for stage in dict.fromkeys(stages):
        places = [at for at, name in enumerate(stages) if name == stage]
        whole = specs[places[0]].whole
        if whole is None:
            continue
        _refuse_shared([(specs[at], found[at]) for at in places])
        mixed: dict[str, PartSpec | None] = {"train": whole.train, "validation": whole.validation, "test": whole.test}
        for role, spec in mixed.items():
            having = {at: found[at].roles[role] for at in places if role in found[at].roles}
            if spec is not None and having:
                for at, (its, passes) in _drawn(spec, having).items():
                    found[at] = replace(found[at], roles={**found[at].roles, role: its})
                    if role == "train":
                        found[at] = replace(found[at], passes=passes)
        for probe, spec in whole.probes.items():
            having = {at: found[at].probes[probe] for at in places if probe in found[at].probes}
            for at, (its, _) in _drawn(spec, having).items():
                found[at] = replace(found[at], probes={**found[at].probes, probe: its})
    return found


def _drawn(spec: PartSpec, having: Mapping[int, RoleRows]) -> dict[int, tuple[RoleRows, float]]:
    """Of each part the rows that are in the mix, in their order there, and how often each of them comes on average."""
    with told(spec):
        names = {part.path: part.name for part in spec.parts}
        order = build(spec, DataMix).order({names[found.place]: len(found.rows) for found in having.values()})
    given = {}
    for number, (at, found) in enumerate(having.items()):
        drawn = order[order[:, 0] == number, 1]
        if not len(drawn):
            raise UserError(
                f"{found.place}: the mix has none of these rows", "give the part more of it, or leave it out"
            )
        distinct, first = np.unique(drawn, return_index=True)
        if len(distinct) < len(found.rows):
            chosen = distinct[np.argsort(first)]
            found = replace(found, rows=found.rows.select(chosen.tolist()), known_key="")
        given[at] = found, len(drawn) / len(distinct)
    return given


def _refuse_shared(tasks: Sequence[tuple[TaskSpec, Rows]]) -> None:
    """Raise ``UserError`` where two tasks of a stage share a head unasked, or name one that they cannot share."""
    seen: dict[object, str] = {}
    named: dict[str, tuple[object, str]] = {}
    for spec, rows in tasks:
        head = rows.objective.head
        if head in seen and head.labels and not head.name:
            raise UserError(
                f"{spec.objective.path}: its labels ({', '.join(head.labels)}) are those of `{seen[head]}`, and the "
                "two would share one head",
                f'give it a head of its own: head = "{spec.objective.name}"; or both the same name to share one',
            )
        seen[head] = spec.objective.name
        other, name = named.setdefault(head.name, (head, spec.objective.name))
        if head.name and other != head:
            raise UserError(
                f"{spec.objective.path}: names the head `{head.name}`, as `{name}` does, and the two cannot share one: "
                "their kinds or labels differ",
                "give it a head of another name, or leave `head` out",
            )
