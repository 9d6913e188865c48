"""A model divided among processes by rows becomes what one process makes of it, goes on with any number of them."""

from __future__ import annotations

import json
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.system.forge import Death, Forge
from tests.system.small import PIPELINE, events_of, written
from tests.system.test_distributed import assert_same, start_ranks

MITIGATIONS = {
    "none": [],
    "ewc and replay": [{"use": "ewc", "samples": 6}, {"use": "replay", "share": 0.25}],
    "pulls and interpolation": [
        {"use": "l2sp", "anchor": "run"},
        {"use": "synaptic_intelligence"},
        {"use": "mas", "samples": 6},
        {"use": "ewc", "samples": 6, "fisher": "factored"},
        {"use": "agem", "rows_per_step": 5},
        {"use": "interpolation", "alpha": 0.7},
    ],
}


@dataclass(frozen=True)
class Trial:
    """A recipe whose first stage trains all weights and whose second LoRA, and what one process makes of it."""

    recipe: Path
    alone: Path


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five rows a step, cut into twos: one process has three, in two micro-batches, the other two, in one."""
    text = PIPELINE.replace("batch_size = 4", "batch_size = 5\nmicro_batch_size = 2").replace(
        "dropout = 0.1", "dropout = 0"
    )
    head, _, rest = text.partition("[[mitigation]]")
    return written(tmp_path_factory.mktemp("sharded"), head + "[[evaluator]]" + rest.partition("[[evaluator]]")[2])


@pytest.fixture(scope="module", params=MITIGATIONS)
def trial(request: pytest.FixtureRequest, recipe: Path, forge: Forge) -> Trial:
    name = request.param.replace(" ", "-")
    tables = "".join(
        "[[mitigation]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
        for table in MITIGATIONS[request.param]
    )
    path = written(recipe.parent, recipe.read_text().replace("[[stage]]", tables + "[[stage]]", 1), f"{name}.toml")
    code, told = forge.run("run", path, "--output", recipe.parent / name)
    assert code == 0, told
    return Trial(path, recipe.parent / name)


SHARDED = ("--set", "training.sharding=full")


def test_two_processes_with_half_of_it_each_make_what_one_makes(trial: Trial, forge: Forge, tmp_path: Path) -> None:
    ranks = start_ranks(forge, "run", trial.recipe, "--output", tmp_path / "run", *SHARDED)
    for rank in ranks:
        assert rank.wait() == 0, "\n".join(rank.told() for rank in ranks)
    assert_same(tmp_path / "run", trial.alone)
    adapters = [
        load_file(run / "model" / "adapter" / "adapter_model.safetensors") for run in (tmp_path / "run", trial.alone)
    ]
    for name, tensor in adapters[1].items():
        torch.testing.assert_close(adapters[0][name], tensor, atol=1e-5, rtol=1e-5)
    config = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    losses = [[event["loss"] for event in events_of(run, "step")] for run in (tmp_path / "run", trial.alone)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize("trial", ["ewc and replay"], indirect=True)
def test_a_lost_process_ends_the_other_and_any_number_goes_on(trial: Trial, forge: Forge, tmp_path: Path) -> None:
    """Two processes until one is lost in the full tuning; then one alone into the LoRA stage; then two to the end."""
    run = ("run", trial.recipe, "--output", tmp_path / "run", *SHARDED)
    ranks = start_ranks(forge, *run, death=Death("step", {"stage": 1, "step": 5}))
    assert ranks[1].wait() == -signal.SIGKILL
    died = time.monotonic()
    assert ranks[0].wait() == 1
    assert time.monotonic() - died < 30
    assert "another process of this run was lost" in ranks[0].told()
    saved = sorted(path.name for path in (tmp_path / "run" / "checkpoints" / "step-000003").iterdir())
    assert {"adaptation.rank0.safetensors", "adaptation.rank1.safetensors", "adaptation.rows.json"} <= set(saved)
    assert {Path(name).suffix for name in saved} == {".safetensors", ".json"}, "nothing is a pickle"

    code, told = forge.run(*run, death=Death("step", {"stage": 2, "step": 5}))
    assert code == -signal.SIGKILL, told
    assert "going on after step 3" in told
    ranks = start_ranks(forge, *run)
    for rank in ranks:
        assert rank.wait() == 0, rank.told()
    assert "going on after step 3" in ranks[0].told()
    assert_same(tmp_path / "run", trial.alone)


def test_a_model_that_cannot_be_read_ends_both_though_they_take_turns(
    recipe: Path, forge: Forge, tmp_path: Path
) -> None:
    nowhere = ("--set", "model={ use = 'pretrained', path = '/nowhere' }", *SHARDED)
    ranks = start_ranks(forge, "run", recipe, "--output", tmp_path / "run", *nowhere)
    assert [rank.wait() for rank in ranks] == [2, 2]
    assert "model.path: no folder /nowhere" in ranks[0].told()
    assert "was lost" not in ranks[0].told() + ranks[1].told()
