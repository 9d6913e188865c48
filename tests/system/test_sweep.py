"""``ftk sweep``: points that share what they can, a search that goes on, and the recipe that won."""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from ftk.comparing.study import Study
from ftk.errors import Interrupted, RunFailed
from ftk.recipe.reading import load_recipe
from tests.core.command import ftk_

pytest.importorskip("optuna")

FACTS = 'use = "world_facts", languages = ["en"], limit = 4, templates_per_fact = 1'
RECIPE = f"""
name = "small"
seed = 7
[model]
use = "scratch"
hidden_size = 16
layers = 1
heads = 2
vocabulary_size = 300
[objective]
use = "instruction"
[adaptation]
use = "full"
[data]
overlap = "allow"
[[evaluator]]
use = "perplexity"
[training]
steps = 4
batch_size = 4
learning_rate = 1e-2  # mine
precision = "fp32"
evaluate_every = 2
[[stage]]
name = "capitals"
[stage.data]
train = {{ {FACTS}, relations = ["capital"] }}
validation = {{ {FACTS}, relations = ["capital"], templates = "held_out" }}
test = {{ {FACTS}, relations = ["capital"] }}
[[stage]]
name = "currencies"
[stage.data]
train = {{ {FACTS}, relations = ["currency"] }}
validation = {{ {FACTS}, relations = ["currency"], templates = "held_out" }}
test = {{ {FACTS}, relations = ["currency"] }}
[[stage.mitigation]]
use = "ewc"  # holds
samples = 4
"""
STRENGTH = "stage.currencies.mitigation.ewc.strength"


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "small.toml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


def sweep(recipe: Path, *more: str, spaces: tuple[str, ...] = (f"{STRENGTH}=[0.1, 100.0]",)) -> Any:
    return ftk_("sweep", str(recipe), *(part for space in spaces for part in ("--over", space)), *more)


def test_a_sweep_goes_on_where_it_was_stopped_and_writes_the_recipe_that_won(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[tuple[float, int, Path]] = []
    from ftk.comparing import sweeping

    real = sweeping.run

    def run(which: Any, **how: Any) -> Any:
        if len(runs) == 3:
            runs.append((0.0, 0, Path()))
            raise Interrupted("interrupted")
        (ewc,) = which.stages[1].mitigations
        runs.append((ewc.options.strength, which.seed, how["output"]))
        assert how["choosing"]
        return real(which, **how)

    monkeypatch.setattr(sweeping, "run", run)
    asked = ("--seeds", "0,1", "--best", "best.toml", "--json")
    stopped = sweep(recipe, *asked)
    assert stopped.exit_code == 130
    assert "go on with: ftk" in stopped.stderr
    done = sweep(recipe, *asked)
    assert done.exit_code == 0, done.output
    assert [(strength, seed) for strength, seed, _ in runs if strength] == [(0.1, 0), (0.1, 1), (100, 0), (100, 1)]
    told = json.loads(done.stdout)
    finished = [point for point in told["points"] if point["state"] == "complete"]
    assert [list(point["values"].values()) for point in finished] == [[0.1], [100.0]]
    first = json.loads((runs[0][2] / "report.json").read_text(encoding="utf-8"))
    other = json.loads((runs[2][2] / "report.json").read_text(encoding="utf-8"))
    assert first["matrix"]["perplexity"][0] == other["matrix"]["perplexity"][0], "one first stage for both"
    assert other["stages"][0]["from_cache"]
    assert not (runs[0][2] / "model").exists()
    assert finished[0]["measures"]["target"]["over_seeds"] is not None
    (best,) = [point for point in finished if point["number"] == told["best"]]
    text = Path("best.toml").read_text(encoding="utf-8")
    assert text.startswith("# The best point of a sweep")
    assert "# mine" in text
    assert "# holds" in text
    (strength,) = best["values"].values()
    won = load_recipe("best.toml")
    assert won.stages == load_recipe(recipe, overrides=[f"{STRENGTH}={strength}"]).stages
    assert won.seed == 7
    again = sweep(recipe, "--seeds", "0,1")
    assert again.exit_code == 0, again.output
    assert len(runs) == 5, "nothing is run twice"
    assert "best " in again.stdout
    assert "page: " in again.stdout
    other = sweep(recipe, "--set", "name=other", "--set", "training.steps=3", "--output", "runs/small-sweep")
    assert other.exit_code == 2, "it would take the runs of the first for its own"
    assert "holds the sweep of recipe `small`, and this is `other`" in other.stderr
    assert (Path("runs/small-sweep") / "report.html").is_file()


def test_points_that_fail_or_look_hopeless_stop_nobody(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ftk.comparing import sweeping

    real = sweeping.run

    def run(which: Any, **how: Any) -> Any:
        (ewc,) = which.stages[1].mitigations
        if ewc.options.strength == 1.0:
            raise RunFailed("it broke")
        return real(which, **how)

    monkeypatch.setattr(sweeping, "run", run)
    monkeypatch.setattr(Study, "hopeless", lambda study, point, step, value: point.values[STRENGTH] == 2.0)
    done = sweep(recipe, "--pruner", "median", "--json", spaces=(f"{STRENGTH}=[0.1, 1.0, 2.0]",))
    assert done.exit_code == 0, done.output
    assert sorted(point["state"] for point in json.loads(done.stdout)["points"]) == ["complete", "failed", "pruned"]
    assert "failed: it broke" in done.stderr
    assert len(list(Path("runs/small-sweep").glob("*/seed-7"))) == 1


@pytest.mark.parametrize(
    ("spaces", "more", "told"),
    [
        ((), (), "needs something to search"),
        (("training.learning_rat=[1]",), (), "learning_rate"),
        ((f"{STRENGTH}=log(1e-3, 1)", "training.steps=int(-1, 4)"), ("--trials", "1"), "training.steps"),
        (("seed=[1, 2]",), (), "write --seeds"),
        (("name=['a', 'b']",), (), "a name changes no result"),
        ((f"{STRENGTH}=[1]",), ("--output", "small.toml"), "is a file, not a folder"),
        ((f"{STRENGTH}=[1]",), ("--output", "."), "holds files, but no sweep of ftk"),
        ((f"{STRENGTH}=[1]",), ("--floor", "nan"), "is no finite number"),
        ((f"{STRENGTH}=[1]",), ("--seeds", "1,1"), "are no seeds"),
        ((f"{STRENGTH}=[1]",), ("--best", "small.toml"), "there is such a file already"),
        ((f"{STRENGTH}=log(1, 2)",), ("--sampler", "grid"), "a grid needs points"),
        ((f"{STRENGTH}=[1]",), ("--metric", "accuracy"), "--metric accuracy: no evaluator"),
    ],
    ids=["nothing", "key", "range", "seed", "name", "output", "here", "floor", "seeds", "best", "grid", "metric"],
)  # fmt: skip
def test_what_cannot_be_swept_is_refused(
    recipe: Path, spaces: tuple[str, ...], more: tuple[str, ...], told: str
) -> None:
    done = sweep(recipe, *more, spaces=spaces)
    assert done.exit_code == 2, done.output
    assert told in done.stderr


def test_the_winning_recipe_s_library_is_looked_for_before_anything_runs(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tomlkit", None)
    done = sweep(recipe, "--best", "best.toml")
    assert done.exit_code == 2, done.output
    assert "finetune-toolkit[sweep]" in done.stderr
    assert not Path("runs").exists()


def test_without_validation_rows_it_says_how_to_choose_by_test_rows(recipe: Path) -> None:
    text = RECIPE.replace("validation = ", "probes.other = ")
    recipe.write_text(text.replace("evaluate_every = 2\n", ""), encoding="utf-8")
    blind = sweep(recipe, "--pruner", "median")
    assert blind.exit_code == 2
    assert "--set training.evaluate_every=50" in blind.stderr
    refused = sweep(recipe, spaces=(f"{STRENGTH}=[1]",))
    assert refused.exit_code == 2, refused.output
    assert "no validation rows to choose by" in refused.stderr
    done = sweep(recipe, "--on", "test", spaces=(f"{STRENGTH}=[1]",))
    assert done.exit_code == 0, done.output
    assert "scores: on test rows" in done.stdout


def test_the_winning_recipe_of_a_sequence_holds_the_change_where_it_was_made(tmp_path: Path) -> None:
    from ftk.comparing.winning import winning_recipe

    head = RECIPE.partition("[[evaluator]]")[0]
    data = FACTS.replace(", ", "\n") + '\nrelations = ["{value}"]'
    text = f"{head}[training]\nsteps = 4\n[data.train]  # a template\n{data}\n"
    text += '[sequence]\nvalues = ["capital", "currency"]\n'
    path = tmp_path / "stream.toml"
    path.write_text(text, encoding="utf-8")
    plain = tomllib.loads(winning_recipe(path, ["training.steps=5"], (), "head"))
    assert plain["training"]["steps"] == 5
    assert "sequence" in plain
    unrolled = tomllib.loads(winning_recipe(path, ["stage.currency.training.steps=6"], (), "head"))
    assert "sequence" not in unrolled
    assert unrolled["stage"][1]["training"] == {"steps": 6}
    for made, settings in ((plain, ["training.steps=5"]), (unrolled, ["stage.currency.training.steps=6"])):
        (tmp_path / "made.toml").write_text(winning_recipe(path, settings, (), "head"), encoding="utf-8")
        assert load_recipe(tmp_path / "made.toml").stages == load_recipe(path, overrides=settings).stages, made
