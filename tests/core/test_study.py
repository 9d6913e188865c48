"""The study of a sweep: every point once, found again after a restart, and what makes a point one of the front."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ftk import UserError
from ftk.comparing.outcome import standing
from ftk.comparing.spaces import read_spaces
from ftk.comparing.study import Point, Study
from ftk.comparing.sweeping import Swept, _Watch
from ftk.events import RunEvent
from ftk.parts import Metric
from ftk.plugin.discovery import load_registry
from ftk.report.scores import Scores

RECIPE = Path(__file__).parents[2] / "recipes" / "ewc_lora.toml"
GRID = ["a=[1, 2]", "b.c=log(0.01, 1, 3)"]


def study(store: Path | str, spaces: list[str] = GRID, sweep: Any = None, **changes: Any) -> Study:
    pytest.importorskip("optuna")
    return Study(str(store), sweep or {"recipe": "x"}, **{"name": "s", "spaces": read_spaces(spaces), **changes})


def ended(study: Study) -> list[dict[str, Any]]:
    """Go on to the end, every point being as good as its numbers are large."""
    seen = []
    while (point := study.ask()) is not None:
        seen.append(dict(point.values))
        study.tell(point, point.values["a"], -point.values["b.c"], {"seeds": [0]})
    return seen


@pytest.mark.parametrize("store", ["study.log", "sqlite:///{}/study.db"])
def test_a_grid_has_every_point_once_over_restarts_and_two_at_a_time(store: str, tmp_path: Path) -> None:
    place = store.format(tmp_path) if "://" in store else tmp_path / store
    first = study(place)
    one = first.ask()
    other = study(place).ask()
    assert one is not None
    assert other is not None
    assert one.values != other.values
    first.tell(one, 0, 0, {"told": "so"})
    seen = [dict(one.values), dict(other.values), *ended(study(place))]
    assert sorted(map(str, seen)) == sorted(str({"a": a, "b.c": c}) for a in (1, 2) for c in (0.01, 0.1, 1))
    (again,) = [point for point in study(place).points() if point.number == one.number]
    assert again.state == "complete"
    assert again.found == {"told": "so"}


def test_the_front_is_what_no_other_point_is_better_than_in_both(tmp_path: Path) -> None:
    made = study(tmp_path / "s")
    ended(made)
    front = [point.values for point in made.points() if point.number in made.front()]
    assert sorted(map(str, front)) == ["{'a': 2, 'b.c': 0.01}"]


@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga2"])
def test_a_sampler_draws_so_many_points_within_their_ranges_by_its_seed(sampler: str, tmp_path: Path) -> None:
    spaces = ["a=uniform(-1, 1)", "b.c=log(1e-4, 1)", "n=int(2, 8, 3)", "m=['x', {use = 'y'}]"]
    one, same, other = (
        ended(study(tmp_path / str(number), spaces, sampler=sampler, trials=8, seed=seed))
        for number, seed in enumerate((1, 1, 2))
    )
    assert len(one) == 8
    assert one == same != other
    for values in one:
        assert -1 <= values["a"] <= 1
        assert 1e-4 <= values["b.c"] <= 1
        assert values["n"] in (2, 5, 8)
        assert values["m"] in ("x", {"use": "y"})


def test_a_point_that_was_left_is_the_next_and_one_that_failed_was_tried(tmp_path: Path) -> None:
    made = study(tmp_path / "s", ["a=uniform(0, 1)", "b.c=uniform(0, 1)"], trials=2)
    left = made.ask()
    assert left is not None
    made.leave(left)
    again = made.ask()
    assert again is not None
    assert again.values == left.values
    made.give_up(again, "broken", pruned=False)
    assert len(ended(made)) == 1
    assert [(point.number, point.state) for point in made.points()] == [(1, "failed"), (2, "complete")]


def test_a_killed_process_s_point_is_tried_again(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    code = (
        "from ftk.comparing.spaces import read_spaces; from ftk.comparing.study import Study\n"
        f"point = Study({str(tmp_path / 's')!r}, {{'recipe': 'x'}}, name='s', spaces=read_spaces({GRID})).ask()\n"
        "print(point.values)"
    )
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    seen = ended(study(tmp_path / "s"))
    assert len(seen) == 6
    assert told in map(str, seen)


def test_a_point_killed_before_it_knew_its_values_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = study(tmp_path / "s")
    monkeypatch.setattr("ftk.comparing.spaces.Space.draw", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        made.ask()
    monkeypatch.undo()
    monkeypatch.setattr("ftk.comparing.study._is_dead", lambda process: True)
    assert len(ended(study(tmp_path / "s"))) == 6


def test_a_pruner_ends_what_is_worse_than_most(tmp_path: Path) -> None:
    made = study(tmp_path / "s", ["a=uniform(0, 1)", "b.c=uniform(0, 1)"], trials=8, pruner="median")
    for number in range(7):
        point = made.ask()
        assert point is not None
        assert not made.hopeless(point, 1, 10 + number)
        made.tell(point, number, 1.0, {})
    last = made.ask()
    assert last is not None
    assert made.hopeless(last, 1, 1.0)
    made.give_up(last, "worse than most", pruned=True)
    assert made.points()[-1].state == "pruned"
    assert not study(tmp_path / "t").hopeless(last, 1, 1.0), "without a pruner nothing is"


def test_a_store_of_which_nothing_was_run_takes_the_mended_sweep(tmp_path: Path) -> None:
    wrong = study(tmp_path / "s")
    point = wrong.ask()
    assert point is not None
    wrong.leave(point)
    mended = study(tmp_path / "s", ["a=[3]", "b.c=log(0.01, 1, 2)"], {"recipe": "y"})
    assert ended(mended) == [{"a": 3, "b.c": 0.01}, {"a": 3, "b.c": 1}]


def test_another_sweep_s_store_and_a_grid_without_points_are_refused(tmp_path: Path) -> None:
    study(tmp_path / "s").ask()
    with pytest.raises(UserError, match=r"is of another sweep .other spaces"):
        study(tmp_path / "s", ["a=[1, 2, 3]"])
    with pytest.raises(UserError, match=r"is of another sweep .other recipe"):
        study(tmp_path / "s", sweep={"recipe": "y"})
    with pytest.raises(UserError, match=r"--over a: a grid needs points"):
        study(tmp_path / "t", ["a=uniform(0, 1)"], sampler="grid")
    with pytest.raises(UserError, match="1,000,000 points"):
        study(tmp_path / "u", ["a=int(1, 1000)", "b=int(1, 1000)"], sampler="grid")
    (tmp_path / "mine.toml").write_text('name = "mine"')
    with pytest.raises(UserError, match=r"mine\.toml: is no file of a sweep"):
        study(tmp_path / "mine.toml")
    assert (tmp_path / "mine.toml").read_text() == 'name = "mine"'
    assert study(tmp_path / "g", trials=100).trials == 6, "a grid has each of its points once"
    with pytest.raises(UserError, match="1,000,000,000 points"):
        study(tmp_path / "u", ["a=int(1, 1000000000)"])
    with pytest.raises(UserError, match=r"sqlite:///.*no/where"):
        study("sqlite:////no/where/s.db")


def test_a_point_s_standing_is_told_at_its_place_of_the_way_whatever_its_tasks_are_measured_by() -> None:
    told: list[tuple[int, float]] = []

    class Hears:
        def hopeless(self, point: Any, step: int, value: float) -> bool:
            told.append((step, value))
            return False

    scores = Scores(("old", "new"))
    scores.record(1, "old", [Metric("accuracy", 0.8, True)])
    scores.record(1, "new", [Metric("perplexity", 900.0, False)])
    run = SimpleNamespace(scores=scores, recipe=SimpleNamespace(stages=[SimpleNamespace(name=n) for n in scores.tasks]))

    def evaluated(step: int, accuracy: float, perplexity: float | None, stage: int = 2) -> RunEvent:
        found = {"old": {"accuracy": accuracy}, "new": {"perplexity": perplexity}}
        return RunEvent("evaluated", {"stage": stage, "step": step, "steps": 50, "scores": found})

    swept = Swept(Path(), (), (), (), (0, 1))
    watch = _Watch(Hears(), Point(0, {}), swept, 0.95, 0)  # type: ignore[arg-type]
    watch(evaluated(25, 0.8, 9.0))
    assert not told, "no run is known yet"
    watch.run = run  # type: ignore[assignment]
    watch(evaluated(25, 0.78, 9.0))
    watch.number = 1
    watch(evaluated(0, 0.6, 3.0))
    watch(evaluated(50, 0.8, None))
    assert [place for place, _ in told] == [149, 301, 399], "a hundred a stage, two stages a seed"
    watch(evaluated(50, 0.7, 8.0))
    assert len(told) == 3, "of what is measured at one place the first is told"
    kept, lost, diverged = (value for _, value in told)
    assert lost == pytest.approx(0.6 / 0.8 - 0.95), "what is missing to the floor, however much was learned"
    assert lost < diverged == 0.0 < kept
    shared = _Watch(Hears(), Point(0, {}), swept, 0.95, 1)  # type: ignore[arg-type]
    shared.run, shared.number = run, 1  # type: ignore[assignment]
    shared(evaluated(25, 0.8, 9.0, stage=1))
    shared(evaluated(25, 0.8, 9.0))
    assert [place for place, _ in told[3:]] == [149], "a stage that is the same at every point tells nothing"
    blind = _Watch(Hears(), Point(0, {}), replace(swept, choosing=False), 0.95, 0)  # type: ignore[arg-type]
    blind.run = run  # type: ignore[assignment]
    blind(evaluated(25, 0.8, 9.0))
    assert len(told) == 4, "validation rows are not held against test rows"


@pytest.mark.parametrize(
    ("spaces", "alike"),
    [
        (["stage.currencies.mitigation.ewc.strength=[1, 2]"], 1),
        (["stage.currencies.mitigation.ewc.strength=[1, 2]", "stage.capitals.training.steps=[10, 20]"], 0),
        (["stage.currencies.training.steps=int(5, 9)"], 1),
        (["model.hidden_size=[192, 384]"], 0),
        (["stage.currencies.training.steps=[7]"], 2),
    ],
)
def test_it_is_known_which_stages_are_the_same_at_every_point(spaces: list[str], alike: int) -> None:
    swept = Swept(RECIPE, (), (), tuple(read_spaces(spaces)), (0,))
    assert swept.alike(load_registry(third_party=False)) == alike


def test_a_standing_orders_points_as_the_best_is_chosen() -> None:
    floor = 0.9
    worth = [(learned, kept) for learned in (-5e4, -2.0, 0.0, 0.7, 3e3) for kept in (0.0, 0.5, 0.9, 1.0)]
    by_rule = sorted(worth, key=lambda one: (one[1] >= floor, one[0] if one[1] >= floor else one[1]))
    values = [standing(*one, floor) for one in by_rule]
    assert values == sorted(values)
    assert standing(-5e4, 0.9, floor) > standing(-5.1e4, 1.0, floor) > standing(3e3, 0.89, floor)
