"""Two processes do the work of one: the same weights, the same scores, one of them writes."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.system.forge import Death, Forge, Process
from tests.system.small import PIPELINE, events_of, report_of, written
from tests.system.test_resume import reached


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pipeline with batches of 8, with rows of several lengths, and without dropout, which no two cuts share.

    It is measured on its test rows while it trains, and keeps the best weights.
    """
    text = PIPELINE.replace("batch_size = 4", "batch_size = 8").replace("dropout = 0.1", "dropout = 0.0")
    text = text.replace("[[evaluator]]", '[[mitigation]]\nuse = "gpm"\nsamples = 5\n[[evaluator]]', 1)
    text = text.replace("[training]", '[training]\nevaluate_every = 5\nkeep = "best"\nbest_by = "perplexity"')
    text = re.sub("^(retain_)?test = (.*)$", r"\g<0>\n\1validation = \2", text, flags=re.MULTILINE)
    return written(tmp_path_factory.mktemp("distributed"), text)


@pytest.fixture(scope="module")
def alone(recipe: Path, forge: Forge) -> Path:
    """What one process makes of it."""
    run = recipe.parent / "alone"
    code, told = forge.run("run", recipe, "--output", run)
    assert code == 0, told
    return run


def start_ranks(
    forge: Forge, *arguments: str | Path, death: Death | None = None, environment: Mapping[str, str] | None = None
) -> list[Process]:
    """Two processes with the environment that `torchrun` and `accelerate launch` give them.

    Args:
        forge: starts them.
        arguments: of the command.
        death: when the second of them dies.
        environment: what they find beside it.
    """
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    common = {
        "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        **({"ACCELERATE_USE_CPU": "true"} if torch.accelerator.is_available() else {}), **(environment or {}),
    }  # fmt: skip
    return [
        forge.start(*arguments, environment={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}, death=dies)
        for rank, dies in enumerate((None, death))
    ]


def assert_same(run: Path, other: Path) -> None:
    """The weights of every stage to 1e-5, and the scores that follow from them."""
    for file in ("model/model.safetensors", "stages/1-capitals/model/model.safetensors"):
        there, here = load_file(other / file), load_file(run / file)
        assert there.keys() == here.keys()
        for name, weight in there.items():
            torch.testing.assert_close(
                here[name], weight, atol=1e-5, rtol=1e-5, msg=lambda told, n=name: f"{n}: {told}"
            )
    there, here = report_of(other), report_of(run)
    assert here["matrix"].keys() == there["matrix"].keys()
    for metric, rows in there["matrix"].items():
        torch.testing.assert_close(torch.tensor(here["matrix"][metric]), torch.tensor(rows), atol=1e-4, rtol=1e-4)
    for one, two in zip(here["stages"], there["stages"], strict=True):
        assert one["tokens"] == two["tokens"]
        assert one["kept_step"] == two["kept_step"]
        assert [entry["step"] for entry in one["history"]] == [entry["step"] for entry in two["history"]]
        criteria = [[entry["criterion"] for entry in its["history"]] for its in (one, two)]
        assert criteria[0] == pytest.approx(criteria[1], rel=1e-4)
        assert one["mitigations"].keys() == two["mitigations"].keys()
        for name, measured in (("ewc", "trace"), ("synaptic_intelligence", "lowered")):
            guarded = [stage["mitigations"].get(name, {"tasks": {}})["tasks"] for stage in (one, two)]
            assert guarded[0].keys() == guarded[1].keys()
            for task, told in guarded[1].items():
                assert guarded[0][task][measured] == pytest.approx(told[measured], rel=1e-4)


def test_two_processes_make_what_one_makes(recipe: Path, alone: Path, forge: Forge, tmp_path: Path) -> None:
    ranks = start_ranks(forge, "run", recipe, "--output", tmp_path / "run")
    for rank in ranks:
        assert rank.wait() == 0, "\n".join(rank.told() for rank in ranks)
    assert ["report.json: " in rank.told() for rank in ranks] == [True, False], "one process tells the result"
    assert_same(tmp_path / "run", alone)
    assert [event["status"] for event in events_of(tmp_path / "run", "run_finished")] == ["completed"]
    losses = [[event["loss"] for event in events_of(run, "step")] for run in (tmp_path / "run", alone)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4), "the loss that is told is that of all processes"


def test_the_cut_of_a_batch_does_not_matter(recipe: Path, alone: Path, forge: Forge, tmp_path: Path) -> None:
    code, told = forge.run("run", recipe, "--output", tmp_path / "run", "--set", "training.micro_batch_size=3")
    assert code == 0, told
    assert_same(tmp_path / "run", alone)


def test_steps_in_tokens_are_the_same_for_two_processes(recipe: Path, forge: Forge, tmp_path: Path) -> None:
    """Of 40 tokens: often the second process has no row of its own, or fewer passes to make."""
    text = recipe.read_text(encoding="utf-8").replace("batch_size = 8\n", "batch_tokens = 40\ngroup_by_length = true\n")
    sliced = written(tmp_path, text)
    code, told = forge.run("run", sliced, "--output", tmp_path / "alone")
    assert code == 0, told
    ranks = start_ranks(forge, "run", sliced, "--output", tmp_path / "run", "--set", "training.micro_batch_tokens=25")
    for rank in ranks:
        assert rank.wait() == 0, "\n".join(rank.told() for rank in ranks)
    assert_same(tmp_path / "run", tmp_path / "alone")


def test_a_signal_to_one_process_stops_both_and_both_go_on(
    recipe: Path, alone: Path, forge: Forge, tmp_path: Path
) -> None:
    run = ("run", recipe, "--output", tmp_path / "run", "--set", "training.steps=60")
    ranks = start_ranks(forge, *run)
    reached(tmp_path / "run", "step")
    os.kill(ranks[1].pid, signal.SIGTERM)
    for rank in ranks:
        assert rank.wait() == 130, rank.told()
    step = events_of(tmp_path / "run", "step")[-1]["step"]
    assert f"interrupted in stage `capitals` after step {step}; saved" in ranks[0].told()

    ranks = start_ranks(forge, *run)
    reached(tmp_path / "run", "stage_started", count=2)
    for rank in ranks:
        os.kill(rank.pid, signal.SIGTERM)
    for rank in ranks:
        assert rank.wait() == 130, rank.told()
    assert f"going on after step {step}" in ranks[0].told()


def test_a_process_that_is_lost_ends_the_other_and_the_run_goes_on(
    recipe: Path, alone: Path, forge: Forge, tmp_path: Path
) -> None:
    run = ("run", recipe, "--output", tmp_path / "run")
    ranks = start_ranks(forge, *run, death=Death("step", {"stage": 1, "step": 5}))
    assert ranks[1].wait() == -signal.SIGKILL
    died = time.monotonic()
    assert ranks[0].wait() == 1
    assert time.monotonic() - died < 30
    told = ranks[0].told()
    assert "another process of this run was lost; process 0 of 2 noticed it and stops" in told
    assert "start all of them again to go on from the last checkpoint" in told
    assert "Traceback" not in told
    assert events_of(tmp_path / "run")[-1]["status"] == "failed"

    ranks = start_ranks(forge, *run)
    for rank in ranks:
        assert rank.wait() == 0, rank.told()
    assert "going on after step 3" in ranks[0].told()
    assert_same(tmp_path / "run", alone)


def test_a_launcher_that_would_divide_the_model_itself_is_refused(recipe: Path, forge: Forge, tmp_path: Path) -> None:
    run = ("run", recipe, "--output", tmp_path / "run")
    code, told = forge.run(*run, environment={"ACCELERATE_USE_FSDP": "true"})
    assert code == 2
    assert "the launcher is set up for FSDP (ACCELERATE_USE_FSDP)" in told


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["training.steps=-1"], "training.steps: must be above 0"),
        (["training.batch_size=1"], "training.batch_size 1 gives 2 processes less than a row each"),
        (["data.retain_test={ use = 'files', path = 'no.jsonl' }"], "data.retain_test: there is no file no.jsonl"),
    ],
    ids=["before they have met", "fewer rows than processes", "missing file"],
)
def test_a_mistake_ends_both_and_one_tells_it(
    settings: list[str], said: str, recipe: Path, forge: Forge, tmp_path: Path
) -> None:
    arguments = [word for setting in settings for word in ("--set", setting)]
    ranks = start_ranks(forge, "run", recipe, "--output", tmp_path / "run", *arguments)
    for rank in ranks:
        assert rank.wait() == 2, rank.told()
    assert said in ranks[0].told()
    assert ranks[0].told().count("error:") == 1
    assert "Traceback" not in ranks[0].told()
    assert ranks[1].told() == ""


def test_a_folder_that_is_refused_ends_both(recipe: Path, alone: Path, forge: Forge) -> None:
    ranks = start_ranks(forge, "run", recipe, "--output", alone, "--set", "seed=9")
    for rank in ranks:
        assert rank.wait() == 2, rank.told()
    assert "holds a run of another recipe" in ranks[0].told()
    assert ranks[1].told() == ""


def test_a_signal_outside_the_steps_ends_both(recipe: Path, forge: Forge, tmp_path: Path) -> None:
    """While one estimates, the other may wait for it in an exchange that then never comes."""
    many = [
        "data.retain.limit=190",
        "mitigation.ewc.samples=5000",
        "mitigation.ewc.fisher_batch_size=1",
        "evaluator=[{ use = 'perplexity' }]",
    ]
    arguments = [word for setting in many for word in ("--set", setting)]
    ranks = start_ranks(forge, "run", recipe, "--output", tmp_path / "run", *arguments)
    reached(tmp_path / "run", "phase", "Fisher information of retain")
    for rank in reversed(ranks):
        os.kill(rank.pid, signal.SIGTERM)
    for rank in ranks:
        assert rank.wait() == 130, rank.told()
    assert not events_of(tmp_path / "run", "stage_started")
