"""The contract of adaptations that change what is trained from step to step."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from ftk.parts import Adaptation, Context
from ftk.testing.declarations import through_disk
from ftk.testing.subject import Subject, attached, hold

LONG = 24
"""Steps over which an adaptation that changes is followed."""


def before_a_step_it_says_what_changes(subject: Subject) -> None:
    """`before_step` tells whether what requires gradients has changed; what is in a group is trained in some step.

    The groups stay what they are, and a stage that resumes trains what it would have trained.
    """
    adaptation, model = attached(subject.spec, subject.model())
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    grouped = _grouped(adaptation, model, names)
    before = seen = _trained(model)
    for step in range(LONG):
        told = adaptation.before_step(at_step(subject, adaptation, model, step, LONG))
        now = _trained(model)
        hold(told == (now != before), f"before step {step} it returns {told}, and what is trained says {now != before}")
        hold(now, f"in step {step} nothing is trained")
        before, seen = now, seen | now
    hold(_grouped(adaptation, model, names) == grouped, "its groups hold other parameters than before the first step")
    hold(seen == grouped, f"is in a group or is trained, and not both: {', '.join(sorted(seen ^ grouped)[:4])}")
    again, resumed = attached(subject.spec, subject.model())
    again.load_state_dict(through_disk({"adaptation": adaptation.state_dict()})["adaptation"])
    again.before_step(at_step(subject, again, resumed, LONG - 1, LONG))
    hold(_trained(resumed) == before, "resumed at the last step, it trains other parameters")


def at_step(subject: Subject, adaptation: Adaptation, model: nn.Module, step: int, steps: int) -> Context:
    """A context for a call in this step of so many."""
    objective = subject.companion("objective")
    return subject.context(model, objective, adaptation=adaptation, step=step, steps=steps)


def _trained(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def _grouped(adaptation: Adaptation, model: nn.Module, names: Mapping[int, str]) -> set[str]:
    groups = adaptation.param_groups(model, 1.0)
    return {names.get(id(parameter), "a tensor outside the model") for group in groups for parameter in group["params"]}
