"""Taking a run up where it was left, also by a recipe that has gained stages since."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ftk.parts import State
from ftk.report.scores import Scores
from ftk.running.measuring import measure_tasks

if TYPE_CHECKING:
    from ftk.running.pipeline import Run


@dataclass
class Left:
    """What a run finds in its folder.

    Attributes:
        scores: of what was measured.
        done: how many stages have finished; -1 where not even the start was measured.
        carried: the states that go on from the last of them.
        stages: the facts of each.
        new: the tasks that the recipe has gained since the last of them finished.
    """

    scores: Scores
    done: int = -1
    carried: dict[str, State] = field(default_factory=dict)
    stages: list[dict[str, Any]] = field(default_factory=list)
    new: Sequence[str] = ()


def take_up(run: Run) -> Left:
    """What the stages that have finished left; tasks that are new since are measured with the starting model."""
    assert run.folder is not None
    left = Left(run.scores)
    for left.done, (states, facts) in enumerate(run.folder.finished_stages([s.name for s in run.recipe.stages])):
        found = Scores.from_state(states.pop("scores"))
        left.scores, left.new = found.extended(run.scores.tasks), run.scores.tasks[len(found.tasks) :]
        if left.done:
            left.carried = states
            left.stages.append(facts["facts"])
    if left.new:
        run.events("phase", text=f"going on with what was added: {', '.join(left.new)}")
    if left.new and left.done > 0:
        heads, text = run.load(), "it is made of the rows of all tasks, and these are more now"
        if run.corpus_read:
            run.events("warning", text=f"the starting model is not measured on {', '.join(left.new)}: {text}")
        else:
            tasks = run.tasks(heads.processor)
            measure_tasks(run.context(0, heads, tasks), [t for t in tasks if t.name in left.new], left.scores)
    run.accelerator.wait_for_everyone()  # before the first of us finishes something that a peer would find
    return left
