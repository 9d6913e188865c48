"""The contract of model sources, data sources and transforms: the same model, the same rows, every time."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from datasets import Dataset

from ftk.data.cache import Cache
from ftk.data.combining import open_source
from ftk.data.rows import RowReader
from ftk.errors import UserError
from ftk.parts import DatasetSource, Head, Loaded, Split, StartingModel, Transform
from ftk.parts.heads import Heads
from ftk.recipe.sampled import TRAINED
from ftk.recipe.specs import PartSpec
from ftk.recipe.tested import TESTED
from ftk.testing.subject import Subject, hold, hold_equal, seeded

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def loads_a_model_and_its_processor(subject: Subject) -> None:
    """`load` gives a model on the CPU with finite weights, and its processor: with an objective they give a loss."""
    loaded = _load(subject)
    hold(isinstance(loaded, Loaded), f"load returned a {type(loaded).__name__}, not ftk.parts.Loaded")
    hold(isinstance(loaded.model, torch.nn.Module), f"the model is a {type(loaded.model).__name__}")
    for name, tensor in loaded.model.state_dict().items():
        hold(tensor.device.type == "cpu", f"{name} is on {tensor.device}")
        hold(not tensor.is_floating_point() or torch.isfinite(tensor).all(), f"{name} is not finite")
    objective = subject.companion("objective")
    items = [objective.encode(row, loaded.processor) for row in subject.rows]
    model = loaded.model.eval()
    with torch.no_grad():
        loss = objective.loss(model, objective.collate(items), subject.context(model, objective)).total
    hold(torch.isfinite(loss), f"its loss is {float(loss)}")


def its_identity_stays(subject: Subject) -> None:
    """`identity` is a text, the same each time, or None where it is not known."""
    one, other = subject.build().identity(), subject.build().identity()
    hold(one == other and (one is None or (isinstance(one, str) and one)), f"it is {one!r}, then {other!r}")


def loads_the_same_twice(subject: Subject) -> None:
    """Two loads under one global seed give the same weights and features, wherever the generator stands by then."""
    with seeded(1):
        one = _load(subject)
    with seeded(1):
        torch.rand(3)
        other = _load(subject)
    _hold_same(subject, one, other, "differs in a second load")


def its_outline_is_the_model(subject: Subject) -> None:
    """`outline` gives tensors of the names, shapes and types that `load` gives, and the same features of a row."""
    with seeded(1):
        loaded = _load(subject)
    with seeded(1):
        outline = subject.build().outline(_head(subject), lambda: _texts(subject))
    there, here = (
        {name: (tensor.shape, tensor.dtype, tensor.requires_grad) for name, tensor in one.model.named_parameters()}
        for one in (loaded, outline)
    )
    hold_equal(there, here, "in the outline these differ from the loaded model's")
    _hold_same_features(subject, loaded, outline, "of the outline")


def loads_what_a_stage_saved(subject: Subject) -> None:
    """`load_folder` gives back, bit for bit, what `save` wrote, also after training changed it; no pickles."""
    loaded = _load(subject)
    with torch.no_grad():
        for parameter in loaded.model.parameters():
            if parameter.is_floating_point():
                parameter.mul_(1.25)
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as other:
        subject.build().save(loaded.model, loaded.processor, Path(folder))
        again = subject.build().load_folder(Path(folder), _head(subject))
        _hold_same(subject, loaded, again, "differs after save and load_folder")
        subject.build().save(again.model, again.processor, Path(other))
        files = sorted(path.relative_to(folder) for path in Path(folder).rglob("*") if path.is_file())
        pickles = [str(file) for file in files if file.suffix in (".bin", ".pt", ".pth", ".pkl")]
        hold(not pickles, f"{', '.join(pickles)} would be unpickled, and could run code")
        for file in files:
            written = [Path(place) / file for place in (folder, other)]
            same = written[1].is_file() and written[0].read_bytes() == written[1].read_bytes()
            hold(same, f"{file} differs when what load_folder gave is saved again")


def keeps_the_rows_of_a_head_that_grows(subject: Subject) -> None:
    """Labels that a head has beyond what `save` wrote get rows that are drawn; all else `load_folder` gives back."""
    own = _head(subject)
    head = own if own.labels else Head("sequence_classification", ("first", "second"), "single_label_classification")
    more = replace(head, labels=(*head.labels, "added"))
    source = subject.build()
    try:
        source.load(more, lambda: _texts(subject))
        saved = source.load(head, lambda: _texts(subject))
    except UserError:
        return
    with tempfile.TemporaryDirectory() as folder:
        source.save(saved.model, saved.processor, Path(folder))
        models = []
        for _ in range(2):
            with seeded(1):
                models.append(source.load_folder(Path(folder), more).model)
    one, other, before = (dict(model.named_parameters()) for model in (*models, saved.model))
    hold_equal(one, other, "loaded twice these differ")
    hold(one.keys() == before.keys(), "the larger model has other weights")
    grown = [name for name, tensor in one.items() if tensor.shape != before[name].shape]
    hold(grown, "no weight has gained a row")
    for name, tensor in one.items():
        rows = len(before[name]) if name in grown else None
        hold(torch.equal(tensor[:rows] if rows else tensor, before[name]), f"{name} is not as it was saved")
        hold(torch.isfinite(tensor).all(), f"{name} is not finite")
    hold(all(len(one[name]) == len(before[name]) + 1 for name in grown), "a weight has gained more than one row")


def gives_rows(subject: Subject) -> None:
    """`rows` gives a `datasets.Dataset` with rows for every split it names, or for each role."""
    source = _source(subject)
    for split in source.splits() or SPLITS:
        hold(split in SPLITS, f"splits() names {split!r}; valid are {', '.join(SPLITS)}")
        rows = source.rows(split)
        hold(isinstance(rows, Dataset), f"rows({split!r}) is a {type(rows).__name__}, not a datasets.Dataset")
        hold(len(rows) > 0 and rows.column_names, f"rows({split!r}) is empty")


def gives_the_same_rows_twice(subject: Subject) -> None:
    """A second source with the same options gives the same rows in the same order."""
    one, other = _source(subject), _source(subject)
    with seeded(1):
        first = {split: one.rows(split).to_list() for split in one.splits() or SPLITS}
    with seeded(2):
        second = {split: other.rows(split).to_list() for split in other.splits() or SPLITS}
    differ = [split for split in first if first[split] != second[split]]
    hold(not differ, f"the rows of {', '.join(differ)} differ")
    hold(one.identity() == other.identity(), "the rows are the same, and `identity` differs")


def keeps_splits_apart(subject: Subject) -> None:
    """Splits share no row; a source without splits gives all its rows for each role."""
    source = _source(subject)
    splits = source.splits()
    if not splits:
        lists = [source.rows(split).to_list() for split in SPLITS]
        hold(lists[0] == lists[1] == lists[2], "splits() is empty, yet the roles get different rows")
        return
    hold("train" in splits, "splits() must name train beside the others")
    seen: dict[str, str] = {}
    for split in splits:
        texts = {repr(row) for row in source.rows(split)}
        shared = [text for text in texts if text in seen]
        hold(not shared, f"{len(shared)} rows of {split} stand in {seen[shared[0]] if shared else ''} too")
        seen.update(dict.fromkeys(texts, split))


def tells_what_it_left_out(subject: Subject) -> None:
    """`effects` tells, after `rows`, which rows were dropped or made and why; the same of the same rows."""
    source = _source(subject)
    hold(not source.effects(), "it tells effects before its rows were read")
    told = []
    for _ in range(2):
        source.rows(*source.splits()[:1] or ("train",))
        told.append(tuple(source.effects()))
    hold(told[0] == told[1], f"of the same rows it tells {told[0]} and {told[1]}")
    hold(all(effect.rows > 0 and effect.reason for effect in told[0]), f"an effect without rows or reason: {told[0]}")
    hold(all(effect.fate != "changed" for effect in told[0]), "rows were not there before, so that it changed none")


def applies_to_rows(subject: Subject) -> None:
    """`apply` returns a `datasets.Dataset`, the same each time, and leaves the one it was given as it is."""
    rows = Dataset.from_list([dict(row) for row in subject.rows])
    before = rows.to_list()
    with seeded(1):
        one = _transform(subject).apply(rows)
    with seeded(2):
        other = _transform(subject).apply(rows)
    hold(isinstance(one, Dataset), f"apply returned a {type(one).__name__}, not a datasets.Dataset")
    hold(one.to_list() == other.to_list(), "applied twice to the same rows, it gives different ones")
    hold(rows.to_list() == before, "it changed the rows that it was given")


def tells_what_it_did(subject: Subject) -> None:
    """What `effects` tells adds up: the rows before, less those dropped, with those made, are the rows after."""
    transform = _transform(subject)
    hold(not transform.effects(), "it tells effects before it was applied")
    rows = Dataset.from_list([dict(row) for row in subject.rows])
    for _ in range(2):  # the second tells of itself alone
        after = len(transform.apply(rows))
        effects = transform.effects()
        counts = {fate: sum(e.rows for e in effects if e.fate == fate) for fate in ("dropped", "changed", "made")}
        hold(
            all(effect.rows > 0 and effect.reason for effect in effects), f"an effect without rows or reason: {effects}"
        )
        expected = len(rows) - counts["dropped"] + counts["made"]
        hold(not effects or after == expected, f"of {len(rows)} rows it tells {counts}, and gives {after}")


class _Mixed(DatasetSource):
    """A data set made of others, as the core reads it; nothing is kept from one reading to the next."""

    def __init__(self, spec: PartSpec) -> None:
        self.spec = spec

    def splits(self) -> tuple[Split, ...]:
        return open_source(self.spec).splits()

    def rows(self, split: Split) -> Dataset:
        with tempfile.TemporaryDirectory() as folder:
            return Dataset.from_list(RowReader(Cache(Path(folder))).read(self.spec, split).rows.to_list())


def _source(subject: Subject) -> DatasetSource:
    """The data set, new, for its rows to be read; shown the toy model where it asks for the starting one."""
    source = _Mixed(subject.spec) if subject.spec.parts else cast(DatasetSource, subject.build())
    if TRAINED in subject.spec.needs():
        source.see_model(
            StartingModel(lambda: "toy", lambda head: Loaded(subject.model(), subject.processor()), lambda *told: None)
        )
    return source


def _transform(subject: Subject) -> Transform:
    """The transform, shown the last of the rows as a test set where it asks for test sets."""
    transform = cast(Transform, subject.build())
    if TESTED in subject.spec.needs():
        texts = (value for value in subject.rows[-1].values() if isinstance(value, str))
        transform.see_tests("data.test", texts)
    return transform


def its_heads_share_a_body(subject: Subject) -> None:
    """The models of two heads share their `body`, and a head with labels has weights of its own; or one is refused."""
    source, labels = subject.build(), Head("sequence_classification", ("first", "second"))
    try:
        models = {h: source.load(h, lambda: _texts(subject)).model for h in (Head("causal_lm"), labels)}
        heads = Heads(models, labels, None, source.body)
    except UserError:
        return
    other, live = (dict(model.named_parameters()) for model in heads.models.values())
    shared = {id(parameter) for parameter in live.values()} & {id(parameter) for parameter in other.values()}
    hold(shared, "they share no weight")
    hold(any(id(parameter) not in shared for parameter in live.values()), "they share every weight")


def _texts(subject: Subject) -> Iterator[str]:
    objective = subject.companion("objective")
    for row in subject.rows:
        yield from objective.texts(row)


def _head(subject: Subject) -> Head:
    return cast(Head, subject.companion("objective").head)


def _load(subject: Subject) -> Loaded:
    return cast(Loaded, subject.build().load(_head(subject), lambda: _texts(subject)))


def _hold_same(subject: Subject, one: Loaded, other: Loaded, what: str) -> None:
    hold_equal(one.model.state_dict(), other.model.state_dict(), what)
    _hold_same_features(subject, one, other, what)


def _hold_same_features(subject: Subject, one: Loaded, other: Loaded, what: str) -> None:
    objective = subject.companion("objective")
    for row in subject.rows:
        features, others = objective.encode(row, one.processor), objective.encode(row, other.processor)
        same = features.keys() == others.keys() and all(
            np.array_equal(array, others[name]) for name, array in features.items()
        )
        hold(same, f"{what}: the features of {row!r:.60}")


MODEL_CLAUSES = (
    loads_a_model_and_its_processor,
    its_identity_stays,
    loads_the_same_twice,
    its_outline_is_the_model,
    loads_what_a_stage_saved,
    keeps_the_rows_of_a_head_that_grows,
    its_heads_share_a_body,
)
DATASET_CLAUSES = (gives_rows, gives_the_same_rows_twice, keeps_splits_apart, tells_what_it_left_out)
TRANSFORM_CLAUSES = (applies_to_rows, tells_what_it_did)
