"""The contract of mitigations: stations in their order, runs that repeat and resume, a model left alone."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from ftk.data.shares import at
from ftk.errors import Interrupted
from ftk.parts import Course, Objective, Source
from ftk.recipe.checking import KNOB
from ftk.recipe.specs import Recipe
from ftk.running.composition import Composition, stations_of
from ftk.running.folder import RunFolder
from ftk.testing.declarations import hold_plain, hold_same_state, json_value, through_disk
from ftk.testing.staged import (
    STEPS,
    added_by,
    following_stage,
    move,
    penalty_of,
    prepared,
    rows_of,
    stop_after,
    toy_stage,
    train,
    with_gradients,
)  # fmt: skip
from ftk.testing.subject import Subject, bearing, hold, hold_equal, snapshot


def acts_at_its_stations(subject: Subject) -> None:
    """In a real stage its stations can be called in the core's order, and the weights stay finite."""
    for adaptation in subject.companions("adaptation"):
        done = train(toy_stage(subject, adaptation))
        hold(stations_of(done.part), "it overrides no station, so it does nothing")
        infinite = [name for name, weight in done.weights.items() if not torch.isfinite(weight).all()]
        hold(not infinite, f"with adaptation `{adaptation.name}` not finite after the stage: {', '.join(infinite[:4])}")


def the_same_seed_gives_the_same_weights(subject: Subject) -> None:
    """Two runs with one seed end in equal weights: what is random draws from `ctx.generator`."""
    for adaptation in subject.companions("adaptation"):
        one, other = (train(toy_stage(subject, adaptation), noise) for noise in (1, 2))
        hold_equal(one.weights, other.weights, f"with adaptation `{adaptation.name}` these weights differ")
        hold_same_state(one.part.state_dict(), other.part.state_dict(), "the state of two runs differs in")


def resuming_changes_nothing(subject: Subject) -> None:
    """Stopped and resumed, a stage ends in the weights, state and report of one that was not."""
    for adaptation in subject.companions("adaptation"):
        whole = train(toy_stage(subject, adaptation), 1)
        with tempfile.TemporaryDirectory() as path:
            folder = RunFolder(Path(path), cast(Recipe, None), held=False)
            try:
                train(toy_stage(subject, adaptation, folder, stop_after(STEPS // 2)), 1)
                raise AssertionError("the stage was asked to stop, and did not")
            except Interrupted:
                pass
            resumed = train(toy_stage(subject, adaptation, folder), 2)
        hold_equal(whole.weights, resumed.weights, f"with adaptation `{adaptation.name}` these weights differ")
        hold_same_state(whole.part.state_dict(), resumed.part.state_dict(), "the state differs in")
        hold(
            json_value(whole.part.report()) == json_value(resumed.part.report()),
            "its report differs after a resume",
        )


def rehearses_what_it_remembers(subject: Subject) -> None:
    """`rehearse` leaves the tensors that `remember` leaves, as large or larger: `ftk plan` counts them."""
    adaptation = subject.companions("adaptation")[0]
    kept = []
    for station in ("remember", "rehearse"):
        stage = toy_stage(subject, adaptation)
        (part,) = stage.mitigations.parts.values()
        for task in stage.ctx.earlier:
            getattr(part, station)(task, stage.ctx)
        kept.append({name: t for name, t in part.state_dict().items() if isinstance(t, Tensor)})
    remembered, rehearsed = kept
    hold(
        {name: t.dtype for name, t in remembered.items()} == {name: t.dtype for name, t in rehearsed.items()},
        "kept after one of remember and rehearse, and not or in another type after the other: "
        f"{', '.join(sorted(remembered.keys() ^ rehearsed.keys()))}",
    )
    for name, tensor in remembered.items():
        large = tensor.ndim == rehearsed[name].ndim and all(
            a <= b for a, b in zip(tensor.shape, rehearsed[name].shape, strict=True)
        )
        hold(
            large, f"{name} is {tuple(tensor.shape)} after remember, and {tuple(rehearsed[name].shape)} after rehearse"
        )


def its_state_survives_the_disk(subject: Subject) -> None:
    """`state_dict` holds tensors and JSON values; written, read and loaded it is the same state."""
    done = train(toy_stage(subject, subject.companions("adaptation")[0]))
    again = subject.build()
    again.load_state_dict(through_disk({"part": done.part.state_dict()})["part"])
    hold_same_state(done.part.state_dict(), again.state_dict(), "after load_state_dict the state differs in")
    hold_plain({"report": done.part.report()})


def goes_on_in_the_next_stage(subject: Subject) -> None:
    """The next stage goes on from its state alone: from memory or from disk, the weights are the same."""
    adaptation = subject.companions("adaptation")[0]
    weights = []
    for carry in (lambda states: states, through_disk):
        weights.append(train(following_stage(subject, adaptation, carry), 2).weights)
    hold_equal(weights[0], weights[1], "these weights differ after the second stage")


def its_sources_are_shares(subject: Subject) -> None:
    """`sources` are a pure function of options, state and context: encoded rows and a share in (0, 1)."""
    stage = toy_stage(subject, subject.companions("adaptation")[0])
    part = prepared(stage)
    sources, ctx = list(part.sources(stage.ctx)), stage.ctx
    for source in sources:
        hold(
            isinstance(source, Source) and isinstance(source.objective, Objective),
            f"{source!r:.80} is no Source",
        )
        ends = [source.share.at(0), source.share.at(1)] if isinstance(source.share, Course) else [source.share]
        beside = source.reference_rows > 0 and source.share == 0
        hold(beside or (min(ends) >= 0 and 0 < max(ends) < 1), f"the share of {source.name} is {source.share}")
        hold(len(source.items) > 0, f"{source.name} has no rows")
        source.objective.collate(source.items[:2])
    names = [source.name for source in sources]
    hold(len(set(names)) == len(names), f"two sources have one name: {', '.join(names)}")
    told = subject.spec.options.data_share()
    totals = [sum(at(source.share, done) for source in sources) for done in (0, 1)]
    within = min(totals) - 1e-6 < told < max(totals) + 1e-6
    hold(within, f"the shares sum to {totals[0]:g}, in the end {totals[1]:g}, but Options.data_share() says {told:g}")
    again = subject.build()
    again.load_state_dict(through_disk({"part": part.state_dict()})["part"])
    again.begin(ctx)
    for repeated in (part.sources(ctx), again.sources(ctx)):
        hold(rows_of(sources) == rows_of(repeated), "asked again, or after a restart, the sources hold other rows")


def its_penalty_is_a_sum(subject: Subject) -> None:
    """`penalty` is None or a scalar SUM over the batch's targets: two rows cost what each costs, added up."""
    stage = toy_stage(subject, subject.companions("adaptation")[0])
    part = prepared(stage)
    if "penalty" not in stations_of(part):
        return
    move(stage)
    ctx, items = stage.ctx, stage.ctx.taught[0].train.items[:2]
    together, *alone = (penalty_of(part, ctx, batch) for batch in (items, items[:1], items[1:2]))
    if together is None:
        hold(all(value is None for value in alone), "None for two rows, and a penalty for one of them")
        return
    hold(together.shape == () and torch.isfinite(together), f"it is no finite scalar but {together!r:.80}")
    added = sum(value.item() for value in alone if value is not None)
    hold(
        abs(together.item() - added) <= 1e-3 * max(1.0, abs(added)),
        f"{together.item():g}, row by row {added:g}",
    )


def it_reads_gradients_without_a_trace(subject: Subject) -> None:
    """`read_gradients` changes no gradient, weight, flag or hook."""
    if "read_gradients" not in stations_of(subject.build()):
        return
    part, ctx, gradients = with_gradients(subject)
    before = {**bearing(ctx.model), **snapshot(ctx.model)}
    seen = {name: gradient.clone() for name, gradient in gradients.items()}
    Composition({"part": part}).read_gradients(gradients, ctx)
    hold_equal(seen, dict(gradients), "gradients changed by read_gradients")
    hold_equal(before, {**bearing(ctx.model), **ctx.model.state_dict()}, "changed by read_gradients")


def it_edits_gradients_in_place(subject: Subject) -> None:
    """`edit_gradients` changes the gradients in place and nothing else: no shape, flag or weight."""
    part, ctx, gradients = with_gradients(subject)
    before = {**bearing(ctx.model), **snapshot(ctx.model)}
    Composition({"part": part}).edit_gradients(gradients, ctx)
    for name, parameter in gradients.parameters().items():
        gradient = gradients[name]
        hold(gradient.shape == parameter.shape, f"the gradient of {name} has shape {tuple(gradient.shape)}")
        hold(torch.isfinite(gradient).all() and not gradient.requires_grad, f"{name}: not finite, or with a graph")
    hold_equal(before, {**bearing(ctx.model), **ctx.model.state_dict()}, "changed by edit_gradients")


def its_knob_turns_it(subject: Subject) -> None:
    """A `knob` is given where `strength-knob` is provided; what a step adds depends on it, and the state does not."""
    adaptation = subject.companions("adaptation")[0]
    for make in (toy_stage, following_stage):  # some guard what they have seen being learned, and nothing before
        stage = make(subject, adaptation)
        part = prepared(stage)
        told = KNOB in subject.spec.provides()
        hold((part.knob is not None) == told, f"it {'provides' if told else 'does not provide'} {KNOB}")
        if part.knob is None:
            return
        hold(part.knob.minimum <= part.knob.value <= part.knob.maximum, f"{part.knob} begins out of its range")
        move(stage)
        before, low = part.state_dict(), part.knob.value or 0.5
        added = []
        for value in (low, min(2 * low, part.knob.maximum)):
            part.knob.value = value
            added.append(added_by(stage))
        hold_same_state(before, part.state_dict(), "turning the knob changed the state in")
        if not all(torch.equal(gradient, added[1][name]) for name, gradient in added[0].items()):
            return
    raise AssertionError("at twice the strength a step's gradients are the same")


def leaves_the_model_as_it_was(subject: Subject) -> None:
    """After the stage no hook, flag, mode or setting is other than before; weights alone have moved."""
    for adaptation in subject.companions("adaptation"):
        stage = toy_stage(subject, adaptation)
        stage.ctx.model.eval()
        before, threads = bearing(stage.ctx.model), torch.are_deterministic_algorithms_enabled()
        train(stage)
        hold_equal(before, bearing(stage.ctx.model), f"with adaptation `{adaptation.name}` changed after the stage")
        hold(threads == torch.are_deterministic_algorithms_enabled(), "it changed a setting of torch")


CLAUSES = (
    acts_at_its_stations,
    the_same_seed_gives_the_same_weights,
    resuming_changes_nothing,
    rehearses_what_it_remembers,
    its_state_survives_the_disk,
    goes_on_in_the_next_stage,
    its_sources_are_shares,
    its_penalty_is_a_sum,
    it_reads_gradients_without_a_trace,
    it_edits_gradients_in_place,
    its_knob_turns_it,
    leaves_the_model_as_it_was,
)
