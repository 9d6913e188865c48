"""The contract of adaptations: real drift, an exact reference, a state that restores, a plain merge."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ftk.parts import Adaptation, Drift
from ftk.recipe.checking import MERGE
from ftk.testing.changing import at_step, before_a_step_it_says_what_changes
from ftk.testing.declarations import hold_refused, hold_same_state, through_disk
from ftk.testing.subject import Subject, attached, bearing, hold, hold_equal, seeded, snapshot, train

STEPS = 3
"""Optimizer steps of a short training."""


def attaching_keeps_the_function(subject: Subject) -> None:
    """`attach` makes the model trainable, and it still computes what it computed; without `merge`, in `reference`."""
    plain = subject.model()
    expected = logits_of(subject, plain)
    adaptation, model = attached(subject.spec, plain)
    with nullcontext() if MERGE in subject.spec.provides() else adaptation.reference():
        hold_close(logits_of(subject, model), expected, "logits after attach and before")


def trains_what_it_says(subject: Subject) -> None:
    """`param_groups` holds every parameter that requires gradients, each once, with a learning rate."""
    adaptation, model = attached(subject.spec, subject.model())
    groups = adaptation.param_groups(model, 0.5)
    given = [parameter for group in groups for parameter in group["params"]]
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    trainable = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    hold(len(given) == len({id(parameter) for parameter in given}), "a parameter stands in two groups")
    missing = sorted(names[key] for key in trainable - {id(parameter) for parameter in given})
    hold(not missing, f"requires gradients but is in no group: {', '.join(missing[:4])}")
    strange = [parameter for parameter in given if id(parameter) not in names]
    hold(not strange, f"{len(strange)} tensors of its groups are outside the model")
    hold(trainable, "nothing is trained")
    hold(all(group.get("lr", 0) > 0 for group in groups), "a group has no learning rate")


def drift_is_the_real_displacement(subject: Subject) -> None:
    """`weight-drift`: drift is zero at first, then what each merged weight has moved; none is left out."""
    if "weight-drift" not in subject.spec.provides():
        return
    plain = subject.model()
    start = _weights(plain)
    adaptation, model = attached(subject.spec, plain)
    for name, drift in adaptation.drift().items():
        hold(name in start, f"{name} is no weight of the plain model")
        hold(
            tuple(drift.shape or (1,)) == tuple(start[name].shape or (1,)),
            f"the drift of {name} has another shape",
        )
        hold_close(whole(drift), torch.zeros_like(whole(drift)), f"the drift of {name} before training and zero")
    train_shortly(subject, adaptation, model)
    drifts = {name: whole(drift) for name, drift in adaptation.drift().items()}
    end = _weights(adaptation.merge())
    hold(any(drift.abs().sum() > 0 for drift in drifts.values()), "no weight has drifted after training")
    for name, weight in start.items():
        moved = end[name].float() - weight.float()
        told = drifts[name].view(moved.shape) if name in drifts else torch.zeros_like(moved)
        hold_close(told, moved, f"the drift of {name} and what the weight moved")


def pull_back_is_the_chain_rule(subject: Subject) -> None:
    """`weight-drift`: `pull_back` adds to `.grad` the derivative of the drift, chunk by chunk."""
    if "weight-drift" not in subject.spec.provides():
        return
    adaptation, model = attached(subject.spec, subject.model())
    train_shortly(subject, adaptation, model)
    drifts = adaptation.drift()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with seeded(1):
        slopes = {name: torch.randn(drift.rows(0, drift.shape[0]).shape) for name, drift in drifts.items()}
        direction = [torch.randn_like(parameter) for parameter in parameters]
    expected = _directional_derivative(drifts, slopes, parameters, direction)
    for times in (1, 2):  # the second time must add to what the first left
        for name, drift in drifts.items():
            rows = drift.shape[0]
            for begin, end in ((0, 1), (1, rows)) if rows > 1 else ((0, 1),):
                drift.pull_back(begin, end, slopes[name][begin:end])
        found = sum(
            (p.grad.double() * d.double()).sum()
            for p, d in zip(parameters, direction, strict=True)
            if p.grad is not None
        )
        close = torch.isclose(torch.as_tensor(found), times * expected, rtol=1e-2)
        hold(
            close,
            f"along a direction it is {float(found):.6g}, by differences {float(times * expected):.6g}",
        )


def products_are_the_drift(subject: Subject) -> None:
    """`weight-drift`: the products of a drift add up to it, and their gradients are those `pull_back` adds to."""
    if "weight-drift" not in subject.spec.provides():
        return
    adaptation, model = attached(subject.spec, subject.model())
    train_shortly(subject, adaptation, model)
    for name, drift in adaptation.drift().items():
        if not drift.products():
            continue
        total = sum(p.scale * p.left.float() @ p.right.float() for p in drift.products())
        hold_close(torch.as_tensor(total), whole(drift), f"the products of {name} and its drift")
        slope, pulls = torch.randn(drift.shape), []
        for by_products in (False, True):
            model.zero_grad()
            if not by_products:
                drift.pull_back(0, drift.shape[0], slope)
            for p in drift.products() if by_products else ():
                if p.left_grad is not None and p.right_grad is not None:
                    p.left_grad.add_(slope @ p.right.mT, alpha=p.scale)
                    p.right_grad.add_(p.left.mT @ slope, alpha=p.scale)
            pulls.append(torch.cat([q.grad.flatten() for q in model.parameters() if q.grad is not None]))
        hold_close(pulls[1], pulls[0], f"what {name} is pulled by its products and by pull_back")


def reference_is_the_start(subject: Subject) -> None:
    """Within `reference` the model computes what the starting model did; after it, what it did before."""
    plain = subject.model()
    start = logits_of(subject, plain)
    adaptation, model = attached(subject.spec, plain)
    train_shortly(subject, adaptation, model)
    trained, before = logits_of(subject, model), bearing(model)
    hold(not torch.equal(trained, start), "training did not change the model")
    with adaptation.reference():
        hold_close(logits_of(subject, model), start, "logits within reference() and of the starting model")
    hold(torch.equal(logits_of(subject, model), trained), "after reference() the model is not what it was before")
    hold_equal(before, bearing(model), "changed by reference()")


def merging_gives_the_plain_model(subject: Subject) -> None:
    """`merge` returns a model of the start's class and weight names that computes what was trained.

    Without the capability `merge` it computes what the start does, and `export` has written the rest.
    """
    fresh = subject.model()
    adaptation, model = attached(subject.spec, subject.model())
    train_shortly(subject, adaptation, model)
    expected = logits_of(subject, model)
    if MERGE not in subject.spec.provides():
        expected = logits_of(subject, fresh)
        with tempfile.TemporaryDirectory() as folder:
            adaptation.export(Path(folder))
            hold(any(path.is_file() for path in Path(folder).rglob("*")), "nothing holds what it has learned")
    merged = adaptation.merge()
    hold(type(merged) is type(fresh), f"merge returned a {type(merged).__name__}, not a {type(fresh).__name__}")
    strange = merged.state_dict().keys() ^ fresh.state_dict().keys()
    hold(not strange, f"other weights than the plain model: {', '.join(sorted(strange)[:4])}")
    hold_close(logits_of(subject, merged), expected, "logits after merge and what they should be")


def state_brings_the_model_back(subject: Subject) -> None:
    """`attach` on the starting model and `load_state_dict` give the trained model back bit for bit."""
    adaptation, model = attached(subject.spec, subject.model())
    train_shortly(subject, adaptation, model)
    states = through_disk({"adaptation": adaptation.state_dict()})
    again, restored = attached(subject.spec, subject.model())
    again.load_state_dict(states["adaptation"])
    again.before_step(at_step(subject, again, restored, STEPS - 1, STEPS))
    hold_same_state(adaptation.state_dict(), again.state_dict(), "the state differs in")
    hold(
        torch.equal(logits_of(subject, restored), logits_of(subject, model)),
        "the restored model gives other logits",
    )
    hold_equal(bearing(model), bearing(restored), "differs in the restored model")


def attached_it_refuses_unknown_state(subject: Subject) -> None:
    """`load_state_dict` raises `ValueError` for a state that does not fit, and leaves the model as it is."""
    adaptation, model = attached(subject.spec, subject.model())
    before = snapshot(model)
    hold_refused(adaptation)
    hold_equal(before, model.state_dict(), "changed by a state that was refused")


def exporting_changes_nothing(subject: Subject) -> None:
    """`export` writes in a folder of its own under the one it is given, no pickles, and changes nothing."""
    adaptation, model = attached(subject.spec, subject.model())
    train_shortly(subject, adaptation, model)
    before = {**snapshot(model), **bearing(model)}
    with tempfile.TemporaryDirectory() as folder:
        adaptation.export(Path(folder))
        files = [path.relative_to(folder) for path in Path(folder).rglob("*") if path.is_file()]
    pickles = [str(path) for path in files if path.suffix in (".bin", ".pt", ".pth", ".pkl")]
    hold(not pickles, f"wrote {', '.join(pickles)}; use safetensors and JSON")
    loose = [str(path) for path in files if len(path.parts) == 1]
    hold(not loose, f"wrote {', '.join(loose)} where the model's own files go; use a folder of its own")
    hold_equal(before, {**model.state_dict(), **bearing(model)}, "changed by export")


def train_shortly(subject: Subject, adaptation: Adaptation, model: nn.Module) -> None:
    objective = subject.companion("objective")
    ctx = subject.context(model, objective, adaptation=adaptation)
    items = subject.examples(objective).pieces
    for step in range(STEPS):
        ctx = replace(ctx, step=step, steps=STEPS)
        adaptation.before_step(ctx)
        train(model, adaptation.param_groups(model, 1e-2), objective, ctx, items, steps=1)


def logits_of(subject: Subject, model: Any) -> Tensor:
    """What the model computes on the rows, in ``eval`` mode."""
    objective = subject.companion("objective")
    batch = objective.collate(subject.examples(objective).pieces)
    model.eval()
    with torch.no_grad():
        logits: Tensor = objective.loss(model, batch, subject.context(model, objective)).outputs["logits"]
    return logits


def _weights(model: Any) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def whole(drift: Drift) -> Tensor:
    rows = torch.zeros(drift.shape or (1,))
    for start, stop in drift.chunks():
        rows[start:stop] = drift.rows(start, stop)
    return rows


@torch.no_grad()
def _directional_derivative(
    drifts: Mapping[str, Drift],
    slopes: Mapping[str, Tensor],
    parameters: list[nn.Parameter],
    direction: list[Tensor],
) -> Tensor:
    """The derivative of ``Σ slopes ⊙ drift`` along ``direction``, by central differences."""
    size, values = 1e-3, []
    kept = [parameter.clone() for parameter in parameters]
    for sign in (1, -1):
        for parameter, value, step in zip(parameters, kept, direction, strict=True):
            parameter.copy_(value + sign * size * step)
        values.append(
            torch.stack([(whole(d).double() * slopes[name].double()).sum() for name, d in drifts.items()]).sum()
        )
    for parameter, value in zip(parameters, kept, strict=True):
        parameter.copy_(value)
    return (values[0] - values[1]) / (2 * size)


def hold_close(one: Tensor, other: Tensor, what: str) -> None:
    """Equal up to float32 rounding."""
    distance = float((one - other).abs().max()) if one.numel() else 0.0
    hold(distance <= 1e-5 * max(1.0, float(other.abs().max())), f"{what} are {distance:.3g} apart")


CLAUSES = (
    attaching_keeps_the_function,
    trains_what_it_says,
    before_a_step_it_says_what_changes,
    drift_is_the_real_displacement,
    pull_back_is_the_chain_rule,
    products_are_the_drift,
    reference_is_the_start,
    merging_gives_the_plain_model,
    state_brings_the_model_back,
    attached_it_refuses_unknown_state,
    exporting_changes_nothing,
)
