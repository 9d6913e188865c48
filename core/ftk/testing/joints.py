"""The contract of an objective that is made of others."""

from __future__ import annotations

import math

from ftk.parts import JointObjective
from ftk.testing.declarations import hold_same_state, json_value, through_disk
from ftk.testing.subject import Subject, hold

LOSSES = (4.0, 0.5, 1.0)
"""Of three steps, in nats; the tasks' are multiples of them."""


def its_weights_are_of_its_tasks(subject: Subject) -> None:
    """`weights` gives a finite number above 0 for each task, by the name that the recipe gave it."""
    weights = subject.build().weights()
    names = [part.name for part in subject.spec.parts]
    hold(list(weights) == names, f"its tasks are {', '.join(names)}, its weights those of {', '.join(weights)}")
    wrong = {name: weight for name, weight in weights.items() if not (math.isfinite(weight) and weight > 0)}
    hold(not wrong, f"these weights are no finite numbers above 0: {wrong}")


def it_learns_the_same_after_a_restart(subject: Subject) -> None:
    """`learn` depends on options, state and losses alone: the state written, read and loaded goes on alike."""
    one, other = subject.build(), subject.build()
    for loss in LOSSES:
        _learn(one, subject, loss)
        other = subject.build()
        other.load_state_dict(through_disk({"part": one.state_dict()})["part"])
        hold_same_state(one.state_dict(), other.state_dict(), "after load_state_dict the state differs in")
    for part in (one, other):
        _learn(part, subject, 2.0)
    hold(one.weights() == other.weights(), f"the weights are {one.weights()}, after a restart {other.weights()}")
    hold(json_value(one.report()) == json_value(other.report()), "its report differs after a restart")


def it_learns_from_the_tasks_that_had_rows(subject: Subject) -> None:
    """`learn` takes the losses of a step in which a task had no rows; its weights stay finite and above 0."""
    part = subject.build()
    part.learn({subject.spec.parts[0].name: 1.0}, {subject.spec.parts[0].name: 0.5})
    hold(all(math.isfinite(w) and w > 0 for w in part.weights().values()), f"its weights are {part.weights()}")


def _learn(part: JointObjective, subject: Subject, loss: float) -> None:
    names = [each.name for each in subject.spec.parts]
    part.learn({name: loss * (1 + number) for number, name in enumerate(names)}, dict.fromkeys(names, 1 / len(names)))


CLAUSES = (its_weights_are_of_its_tasks, it_learns_the_same_after_a_restart, it_learns_from_the_tasks_that_had_rows)
