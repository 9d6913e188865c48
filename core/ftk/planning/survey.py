"""What a recipe's tasks are made of: rows kept and dropped, lengths, what training sees of them, what it loses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ftk.data.encoding import Encoder
from ftk.data.overlap import overlap
from ftk.data.roles import RoleRows
from ftk.data.rows import Rows
from ftk.errors import UserError, did_you_mean
from ftk.events import Events
from ftk.parts import Examples, Features, ModelSource, Objective, Task, lengths_of
from ftk.processes.meeting import make_accelerator
from ftk.recipe.building import build
from ftk.recipe.members import tasks_of
from ftk.recipe.specs import Recipe, StageSpec
from ftk.running.pipeline import Run

BINS = 12
"""How many bars a histogram of lengths has at most."""

NOT_LEARNED = -100
"""The label of a position that is not learned."""

UNCUT = 2**31
"""More positions than any row has: what ``max_length`` is set to, to find out what it cuts off."""


@dataclass(frozen=True)
class Piece:
    """A run of positions of an encoded row that are all learned, or all only read."""

    text: str
    learned: bool


class Surveyor:
    """Reads a recipe's data as a run would; of the model, only what feeds it.

    Args:
        recipe: what to look into.

    Raises:
        UserError: data, model configuration or processor cannot be read.
    """

    def __init__(self, recipe: Recipe) -> None:
        quiet = replace(
            recipe,
            stages=tuple(replace(stage, data=replace(stage.data, overlap="allow")) for stage in recipe.stages),
        )  # overlaps are part of what is told, and stop nothing
        self._job = Run(quiet, None, make_accelerator(), Events([]), lambda: False)
        self._job.source = build(recipe.model, ModelSource)
        self._job.read_rows()
        self._processor = self._job.load(outline=True).processor
        stages = {task.name: stage for stage in recipe.stages for task in tasks_of(stage)}
        self._stages = [stages.get(name) for name in self.tasks]

    @property
    def tasks(self) -> list[str]:
        """The names of the recipe's tasks, in the order of the score matrix."""
        return [rows.task for rows in self._job.rows]

    def rows(self, name: str) -> Rows:
        """The rows of one task, as their objective reads them.

        Raises:
            UserError: the recipe has no such task.
        """
        for rows in self._job.rows:
            if rows.task == name:
                return rows
        raise UserError(f"the recipe has no task `{name}`", did_you_mean(name, self.tasks))

    def task(self, name: str, examples: int) -> dict[str, Any]:
        """What a run would see of one task, as JSON values: ``docs/recipes.md`` says what each key means."""
        rows = self.rows(name)
        stage = self._stages[self.tasks.index(name)]
        task = rows.task_with(self._processor, (), self._job.encoder)
        told: dict[str, Any] = {
            "task": name,
            "objective": rows.spec.use,
            "roles": {role: self._role(found, _examples(task, role), rows) for role, found in rows.roles.items()},
            "probes": {probe: self._role(found, task.probes[probe], rows) for probe, found in rows.probes.items()},
            "overlaps": [
                {"place": place, "rows": shared, "of": total}
                for place, shared, total in overlap(rows, self._job.encoder)
            ],
            "examples": [
                {"row": row + 1, "pieces": [asdict(piece) for piece in pieces]}
                for row, pieces in shown(task.train, self._processor, examples)
            ],
        }
        return {**told, "mix": _mix(stage, told["roles"]["train"], rows.passes)}

    def _role(self, found: RoleRows, examples: Examples, rows: Rows) -> dict[str, Any]:
        """The rows of one role: what they went through, and how long they are."""
        encoded, items = examples.encoded, examples.items
        lengths = lengths_of(encoded)
        return {
            **_came_from(found),
            "rows": len(found.rows),
            "items": len(items),
            "tokens": int(lengths_of(items).sum()),
            "learned": _learned(encoded),
            "lengths": describe_lengths(lengths),
            "cut": _cut(found, rows, self._processor, self._job.encoder, lengths),
        }


def _came_from(found: RoleRows) -> dict[str, Any]:
    """Where rows were read, what of several data sets they are mixed, and what they went through."""
    told: dict[str, Any] = {"place": found.place, "read": found.steps[0].before if found.steps else len(found.rows)}
    if found.shares:
        told["parts"] = {
            share.name: {
                **_came_from(share.found), "rows": len(share.found.rows), "drawn": share.drawn,
                "distinct": share.distinct, "share": share.drawn / sum(one.drawn for one in found.shares),
            }
            for share in found.shares
        }  # fmt: skip
    return {**told, "steps": [asdict(step) for step in found.steps]}


def describe_lengths(lengths: np.ndarray) -> dict[str, Any]:
    """The least, middle and greatest of some lengths, and how many rows there are of which.

    Args:
        lengths: of the rows, ``(rows,) int64``, in positions.

    Returns:
        ``least``, ``median``, ``mean``, ``p95``, ``most``, and ``histogram``: bars of equal width, each with its
        first length (``from``), its last (``to``) and its ``rows``.
    """
    least, most = int(lengths.min()), int(lengths.max())
    width = -(-(most - least + 1) // BINS)
    counts = np.bincount((lengths - least) // width)
    return {
        "least": least, "median": float(np.median(lengths)), "mean": float(lengths.mean()),
        "p95": float(np.percentile(lengths, 95)), "most": most,
        "histogram": [
            {"from": least + bar * width, "to": min(most, least + (bar + 1) * width - 1), "rows": int(count)}
            for bar, count in enumerate(counts)
        ],
    }  # fmt: skip


def shown(examples: Examples, processor: Any, count: int) -> Iterator[tuple[int, list[Piece]]]:
    """Some rows, spread evenly over all, as training may draw them: what of each is learned, what is only read.

    Rows that are not of tokens come without pieces.

    Yields:
        the number of a row, from 0, and its pieces.
    """
    total = len(examples)
    for row in np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist():
        drawn = examples.objective.vary(examples.encoded[row], processor, np.random.default_rng(row))
        yield row, pieces_of(drawn, processor)


def pieces_of(features: Features, processor: Any) -> list[Piece]:
    """An encoded row as text, cut where what is learned begins and ends."""
    tokenizer = getattr(processor, "tokenizer", processor)
    if "input_ids" not in features or not hasattr(tokenizer, "decode"):
        return []
    ids = features["input_ids"]
    labels = features.get("labels")
    learned = np.zeros(len(ids), bool) if labels is None or labels.shape != ids.shape else labels != NOT_LEARNED
    ends = [*(np.flatnonzero(np.diff(learned)) + 1).tolist(), len(ids)]
    starts = [0, *ends[:-1]]
    return [
        Piece(tokenizer.decode(ids[start:end].tolist()), bool(learned[start]))
        for start, end in zip(starts, ends, strict=True)
        if end > start
    ]


def _learned(encoded: Sequence[Features]) -> int | None:
    """How many positions are learned; None where rows carry no label for each position."""
    if not all(name in encoded[0] for name in ("input_ids", "labels")):
        return None
    if encoded[0]["labels"].shape != encoded[0]["input_ids"].shape:
        return None
    return sum(int((row["labels"] != NOT_LEARNED).sum()) for row in encoded)


def _cut(found: RoleRows, rows: Rows, processor: Any, encoder: Encoder, lengths: np.ndarray) -> dict[str, int] | None:
    """What an objective's ``max_length`` cuts off; None where it has none, or loses nothing by it."""
    options = rows.spec.options
    if "max_length" not in type(options).model_fields:
        return None
    longer = replace(rows.spec, options=options.model_copy(update={"max_length": UNCUT}))
    whole = lengths_of(encoder.encoded(found, longer, build(longer, Objective), processor))
    lost = whole - lengths
    return {"rows": int((lost > 0).sum()), "tokens": int(lost.sum())}


def _mix(stage: StageSpec | None, train: dict[str, Any], passes: float) -> dict[str, Any]:
    """What an epoch of the stage's training draws: its own rows, and those that mitigations mix in by their share.

    Of one of several tasks in a stage, as if it were alone in it; its rows come so many times.
    """
    shares: dict[str, float] = {}
    if stage is not None:
        given = {spec.name: spec.options.data_share() for spec in stage.mitigations}
        shares = {name: float(share) for name, share in given.items() if share}
    own = 1 - sum(shares.values())
    return {
        "shares": {"train": own, **shares},
        "items_per_epoch": round(train["items"] * passes / own),
        "own_tokens_per_epoch": round(train["tokens"] * passes),
    }


def _examples(task: Task, role: str) -> Examples:
    found = {"train": task.train, "validation": task.validation, "test": task.test}[role]
    assert found is not None
    return found
