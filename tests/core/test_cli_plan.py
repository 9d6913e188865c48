"""ftk plan: what it says, what it proposes, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ftk.cli import cli
from ftk.planning.changes import changes
from ftk.planning.machine import GIB, gpus
from ftk.planning.plan import Planner
from ftk.recipe.reading import recipe_from_table
from ftk.recipe.specs import Recipe
from ftk.testing.toys import toy_model, toy_tokenizer
from tests.core.planned import recipe_table


def ftk_plan(*arguments: str, probe: bool = False) -> Result:
    return CliRunner().invoke(cli, ["plan", *arguments, *([] if probe else ["--no-probe"])])


@pytest.fixture(scope="module")
def recipe_file(planned_rows: Path) -> Path:
    """The same recipe as a file, with a published model's configuration and tokenizer, and no weights."""
    folder = planned_rows.parent / "model"
    toy_model(hidden_size=64, intermediate_size=256).config.save_pretrained(folder)
    toy_tokenizer().save_pretrained(folder)
    path = planned_rows.parent / "recipe.toml"
    path.write_text(
        f"""
        name = "planned"
        model = {{ use = "pretrained", path = "{folder}" }}
        objective = {{ use = "causal_lm", append_eos = false }}
        adaptation = {{ use = "full" }}
        data = {{ train = {{ use = "files", path = "{planned_rows}" }} }}
        training = {{ steps = 6, batch_size = 8 }}
        """,
        encoding="utf-8",
    )
    return path


def test_a_plan_needs_no_weights_and_says_that_it_fits(recipe_file: Path) -> None:
    assert not list(recipe_file.parent.rglob("*.safetensors"))
    told = ftk_plan(str(recipe_file))
    assert told.exit_code == 0, told.output
    assert "10 rows, 220 tokens an epoch, 6 steps of 8 rows" in told.stdout
    assert "it fits: " in told.stdout


def test_a_plan_of_layers_on_several_devices_judges_nothing(recipe_file: Path) -> None:
    told = ftk_plan(str(recipe_file), "--set", "training.device_map=auto", "--memory", "2GB")
    assert told.exit_code == 0, told.output
    assert "on all devices and in main memory together: training.device_map decides where" in " ".join(
        told.stdout.split()
    )
    assert "it fits" not in told.stdout
    plan = json.loads(ftk_plan(str(recipe_file), "--set", "training.device_map=auto", "--json").stdout)
    assert plan["fits"] is None
    assert plan["stages"][0]["fits"] is None


def test_a_plan_that_does_not_fit_says_what_to_change(recipe_file: Path) -> None:
    plan = json.loads(ftk_plan(str(recipe_file), "--json").stdout)
    model = plan["stages"][0]["peak_bytes"] - plan["stages"][0]["memory"]["step"]["libraries"]
    memory = f"{(GIB + int(0.8 * model)) / 0.9 / 2**20:.3f}MB"  # of a GPU a GiB is taken before, and a tenth stays free
    told = ftk_plan(str(recipe_file), "--memory", memory, "--json")
    assert told.exit_code == 1
    plan = json.loads(told.stdout)
    assert (plan["schema"], plan["fits"], plan["machine"]["here"]) == (1, False, False)
    (stage,) = plan["stages"]
    assert stage["peak_bytes"] > plan["machine"]["room_bytes"]
    assert stage["seconds_per_step"] is None
    text = ftk_plan(str(recipe_file), "--memory", memory).stdout
    assert "it does not fit: " in text
    assert "--set 'training." in text


def test_changes_come_one_on_top_of_the_other_until_it_fits(planned_rows: Path) -> None:
    recipe = recipe_table(planned_rows, training={"steps": 6, "batch_size": 8, "precision": "fp32"})
    planner = Planner(recipe_from_table(recipe, "test", ""), gpus(2 * GIB, 1))
    plan = planner.stage(1)
    held = plan.stations[-1].parts["weights"] + plan.stations[-1].parts["optimizer"]
    planner = Planner(planner.recipe, gpus(int((GIB + 1.1 * held) / 0.9), 1))

    def changed(settings: list[str]) -> Recipe:
        return recipe_from_table(recipe, "test", "", overrides=settings)

    told = list(changes(planner, 1, planner.stage(1), changed))
    assert [change.setting for change in told][:2] == [
        "training.micro_batch_size=1",
        "training.gradient_checkpointing=true",
    ]
    peak = plan.peak
    for number, change in enumerate(told, start=1):
        assert change.saves == peak - change.plan.peak > 0
        peak = change.plan.peak
        again = planner.changed(changed([earlier.setting for earlier in told[:number]])).stage(1)
        assert again.peak == peak
    assert [change.plan.fits for change in told] == [False] * (len(told) - 1) + [True]


def test_several_devices_share_the_rows(recipe_file: Path) -> None:
    alone, shared = (
        json.loads(ftk_plan(str(recipe_file), "--memory", "8GB", "--devices", devices, "--json").stdout)["stages"][0]
        for devices in ("1", "4")
    )
    assert (alone["micro_batch"]["rows"], shared["micro_batch"]["rows"]) == (8, 2)
    assert shared["memory"]["step"]["activations"] < 0.5 * alone["memory"]["step"]["activations"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--memory", "lots"), "--memory lots: no size of a memory"),
        (("--memory", "8GB", "--devices", "9"), "gives 9 processes less than a row each"),
        (("--set", "model.path='nowhere/at/all'"), "model.path: no folder nowhere/at/all"),
    ],
)
def test_mistakes_are_told(arguments: tuple[str, ...], told: str, recipe_file: Path) -> None:
    result = ftk_plan(str(recipe_file), *arguments)
    assert result.exit_code == 2
    assert told in result.stderr


def test_a_probe_times_steps_on_made_up_weights(recipe_file: Path) -> None:
    (stage,) = json.loads(ftk_plan(str(recipe_file), "--json", probe=True).stdout)["stages"]
    assert stage["seconds_per_step"] > 0
    assert stage["seconds"] == pytest.approx(6 * stage["seconds_per_step"])
