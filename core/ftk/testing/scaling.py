"""The contract of adaptations, continued: a drift that is scaled, as a whole or by weight, or set entry by entry."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ftk.testing.adaptations import hold_close, logits_of, train_shortly, whole
from ftk.testing.subject import Subject, attached, hold


def scaling_is_absolute(subject: Subject) -> None:
    """`weight-scale`: `scale(0)` is the start, `scale(1)` exactly the trained model, in any order."""
    if "weight-scale" not in subject.spec.provides():
        return
    plain = subject.model()
    start = logits_of(subject, plain)
    adaptation, model = attached(subject.spec, plain)
    train_shortly(subject, adaptation, model)
    trained = logits_of(subject, model)
    drifts = {name: whole(drift) for name, drift in adaptation.drift().items()}
    for alpha in (0.5, 0.25):
        adaptation.scale(alpha)
        for name, drift in adaptation.drift().items():
            hold_close(whole(drift), alpha * drifts[name], f"the drift of {name} after scale({alpha})")
    adaptation.scale(0.0)
    hold_close(logits_of(subject, model), start, "logits after scale(0) and of the starting model")
    adaptation.scale(1.0)
    hold(
        torch.equal(logits_of(subject, model), trained),
        "after scale(1) the model is not exactly the trained one",
    )


def scaling_by_weight_is_absolute(subject: Subject) -> None:
    """`layer-scale`: `scale_each` gives each weight its share of its drift, and 1 for all exactly the trained model."""
    if "layer-scale" not in subject.spec.provides():
        return
    adaptation, model = attached(subject.spec, subject.model())
    train_shortly(subject, adaptation, model)
    trained, drifts = logits_of(subject, model), {name: whole(drift) for name, drift in adaptation.drift().items()}
    layers = sorted({name.rpartition(".")[0] for name in drifts})
    shares = {layer: number / len(layers) for number, layer in enumerate(layers)}
    adaptation.scale(0.5)
    adaptation.scale_each(lambda name: shares.get(name.rpartition(".")[0], 0.5))
    for name, drift in adaptation.drift().items():
        hold_close(whole(drift), shares[name.rpartition(".")[0]] * drifts[name], f"the drift of {name}")
    adaptation.scale_each(lambda name: 1.0)
    hold(torch.equal(logits_of(subject, model), trained), "after 1 for all the model is not exactly the trained one")


def what_is_rewritten_is_there(subject: Subject) -> None:
    """`weight-set`: `rewrite` sets every drift, each time from the trained weights; None takes it back."""
    if "weight-set" not in subject.spec.provides():
        return
    adaptation, model = attached(subject.spec, subject.model())
    train_shortly(subject, adaptation, model)
    trained, drifts = logits_of(subject, model), {name: whole(drift) for name, drift in adaptation.drift().items()}
    seen: set[str] = set()

    def kept(name: str, start: Tensor, end: Tensor) -> Iterator[tuple[int, int, Tensor]]:
        seen.add(name)
        moved = end.float() - start.float()
        for row in range(len(moved)):
            yield row, row + 1, moved[row : row + 1].clamp(min=0)

    for _ in range(2):
        adaptation.rewrite(kept)
        for name, drift in adaptation.drift().items():
            hold_close(whole(drift), drifts[name].clamp(min=0), f"the drift of {name}")
    hold(seen == set(drifts), f"asked for {', '.join(sorted(seen ^ set(drifts)))}, or not asked")
    adaptation.rewrite(None)
    hold(
        torch.equal(logits_of(subject, model), trained), "after rewrite(None) the model is not exactly the trained one"
    )


CLAUSES = (scaling_is_absolute, scaling_by_weight_is_absolute, what_is_rewritten_is_there)
