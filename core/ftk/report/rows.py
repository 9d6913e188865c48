"""The lines of every table of scores: each task and metric at the start, when learned, and at the end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ftk.report.scores import RETAIN, Score, Scores

KEPT = 0.95
"""From this retention on, a task counts as kept."""
MANY = 8
"""Above so many tasks, a sentence counts them and a table has no lines between them."""
NAMED = 3
"""How many tasks a sentence names that counts them."""


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """One metric of one task through the run.

    Attributes:
        task: the task's name.
        metric: the metric's name, without its probe.
        probe: the name of the probe set that it was measured on; empty: the task's own test set.
        start: the starting model's score.
        learned: the score when the task had been learned; None for what the starting model knew.
        best: the best score before the last measurement; None for the task that was learned last.
        end: the last score.
        retention: ``end`` as a share of ``best``, see :meth:`ftk.report.scores.Scores.retention`.
        higher_is_better: which way is up.
    """

    task: str
    metric: str
    probe: str
    start: Score
    learned: Score
    best: Score
    end: Score
    retention: Score
    higher_is_better: bool

    @property
    def was_learned(self) -> bool | None:
        """Whether learning improved the score; None where that was not measured."""
        return self._better(self.learned, self.start)

    @property
    def was_kept(self) -> bool | None:
        """Whether the score stood to the end; None where there was nothing before to lose."""
        if self.retention is not None:
            return self.retention >= KEPT
        worse = self._better(self.best, self.end)
        return False if worse else None

    def _better(self, score: Score, other: Score) -> bool | None:
        if score is None or other is None:
            return None
        return score > other if self.higher_is_better else score < other


def score_rows(scores: Scores) -> list[ScoreRow]:
    """A row for each task and metric that was measured, task by task, each metric's probes right after it."""
    rows = []
    metrics = _probes_after_their_metric(scores.metrics)
    for index, task in enumerate(scores.tasks):
        for name in metrics:
            matrix, start = scores.matrix(name), scores.start(name)[index]
            seen = [row[index] for row in matrix]
            if start is None and all(score is None for score in seen):
                continue
            metric, _, probe = name.partition("@")
            rows.append(
                ScoreRow(
                    task=task,
                    metric=metric,
                    probe=probe,
                    start=start,
                    learned=seen[row] if (row := scores.learned(index)) < len(seen) and task != RETAIN else None,
                    best=scores.best_earlier(name)[index],
                    end=seen[-1] if seen else None,
                    retention=scores.retention(name)[index],
                    higher_is_better=scores.higher_is_better[name],
                )
            )
    return rows


def said_of(rows: Iterable[ScoreRow]) -> dict[str, str]:
    """What was learned, not learned, kept and lost, by each task's first metric; only headings with something.

    Many tasks are counted, and of those that were not learned or kept the worst are named.
    """
    headlines: dict[str, ScoreRow] = {}
    for row in rows:
        if not row.probe:
            headlines.setdefault(row.task, row)
    many = len(headlines) > MANY
    said: dict[str, list[str]] = {"Learned": [], "Not learned": [], "Kept": [], "Lost": []}
    order = sorted(headlines.values(), key=lambda row: row.retention or 0.0) if many else headlines.values()
    for row in order:
        # A falling number alone would look like a loss where less of it is better.
        label = row.task if row.higher_is_better else f"{row.task} {row.metric}"
        if row.was_learned is not None:
            change = f"{label} {number(row.start)} → {number(row.learned)}"
            said["Learned" if row.was_learned else "Not learned"].append(change)
        if row.was_kept is not None:
            share = f" ({percent(row.retention)} kept)" if row.retention is not None else ""
            said["Kept" if row.was_kept else "Lost"].append(f"{label} {number(row.best)} → {number(row.end)}{share}")
    told = {heading: ", ".join(changes) for heading, changes in said.items() if changes}
    for heading in told if many else ():
        changes = said[heading]
        named = f" ({', '.join(changes[:NAMED])}{', ...' if len(changes) > NAMED else ''})"
        good = heading in ("Learned", "Kept")
        told[heading] = f"{len(changes)} of {len(headlines)} tasks{'' if good else named}"
    return told


def number(score: Score) -> str:
    """A score as tables show it: shares as 0.990, larger numbers as 12.34, none as a dash."""
    if score is None:
        return "–"
    if abs(score) <= 1:
        return f"{score:.3f}"
    return f"{score:.2f}" if abs(score) < 100_000 else f"{score:.3g}"


def percent(share: Score) -> str:
    """A share of one in percent with one decimal, none as a dash."""
    return "–" if share is None else f"{share:.1%}"


def _probes_after_their_metric(names: tuple[str, ...]) -> list[str]:
    first_seen: dict[str, int] = {}
    for name in names:
        first_seen.setdefault(name.partition("@")[0], len(first_seen))
    return sorted(names, key=lambda name: (first_seen[name.partition("@")[0]], "@" in name))
