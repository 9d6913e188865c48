"""The contract of what an objective predicts: of each row alone, beside what is right of it."""

from __future__ import annotations

import torch

from ftk.parts import Objective, Predictions
from ftk.testing.subject import Subject, bearing, hold, hold_equal

KINDS = {"class-predictions": "classes", "scalar-predictions": "scalars", "embedding-predictions": "embeddings"}


def predicts_each_row_alone(subject: Subject) -> None:
    """`class-predictions` and its like: `predict` gives values and references of its kind, of each row alone."""
    kinds = [kind for capability, kind in KINDS.items() if capability in subject.spec.provides()]
    if not kinds:
        return
    objective, model = subject.build(), subject.model().eval()
    items = subject.examples(objective).encoded
    before = bearing(model)
    whole = _predict(subject, objective, model, items)
    hold_equal(before, bearing(model), "changed by predicting")
    hold(isinstance(whole, Predictions), f"it returned a {type(whole).__name__}, not ftk.parts.Predictions")
    hold([whole.kind] == kinds, f"the kind is {whole.kind}, promised is {', '.join(kinds)}")
    values, references = whole.values, whole.references
    hold(values.is_floating_point() and torch.isfinite(values).all(), f"the values, {values.dtype}, are not finite")
    rows = torch.arange(len(values)) if whole.rows is None else whole.rows
    hold(len(values) == len(references) == len(rows), f"{len(values)} values, {len(references)} references")
    hold(set(rows.tolist()) <= set(range(len(items))), f"rows are numbered {rows.tolist()!r:.80}")
    if whole.kind == "classes":
        hold(not references.is_floating_point(), f"the references of classes are {references.dtype}")
        hold(len(whole.labels) in (0, values.shape[-1]), f"{len(whole.labels)} labels, {values.shape[-1]} logits")
    else:
        hold(values.shape == references.shape, f"values {tuple(values.shape)}, references {tuple(references.shape)}")
    singles = [_predict(subject, objective, model, [item]) for item in items]
    alone = torch.cat([single.values for single in singles])
    together = values[torch.argsort(rows, stable=True)]
    hold(torch.allclose(alone, together, rtol=1e-3, atol=1e-4), "a row is predicted otherwise beside other rows")


def _predict(subject: Subject, objective: Objective, model: torch.nn.Module, items: object) -> Predictions:
    with torch.no_grad():
        return objective.predict(model, objective.collate(items), subject.context(model, objective))  # type: ignore[arg-type]


CLAUSES = (predicts_each_row_alone,)
