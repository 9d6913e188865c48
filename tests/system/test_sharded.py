"""A model divided among processes by rows becomes what one process makes of it, goes on with any number of them."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.system.forge import Death, Forge
from tests.system.small import FACTS, PIPELINE, events_of, written
from tests.system.test_distributed import assert_same, start_ranks

MITIGATIONS: dict[str, list[dict[str, Any]]] = {
    "none": [],
    "ewc and replay": [{"use": "ewc", "samples": 6}, {"use": "replay", "share": 0.25}],
    "pulls and interpolation": [
        {"use": "l2sp", "anchor": "run"},
        {"use": "synaptic_intelligence"},
        {"use": "mas", "samples": 6},
        {"use": "ewc", "samples": 6, "fisher": "factored"},
        {"use": "ewc", "name": "kfac", "samples": 6, "fisher": "kfac"},
        {"use": "agem", "rows_per_step": 5},
        {"use": "interpolation", "alpha": 0.7},
    ],
    "rows and steps": [
        # At first a teacher says what the model says: without their labels its rows' gradients would be rounding alone.
        {"use": "distill", "rows": "both", "share": 0.2, "label_weight": 0.5},
        {"use": "distill", "name": "cached", "rows": "both", "share": 0.2, "label_weight": 0.5, "teacher": "cached"},
        {"use": "der", "share": 0.2, "when": "along"},
        {"use": "pcgrad", "stages": [1, 3]},
        {"use": "olora", "orthogonality": 2.0, "l2": 0.1, "stages": [2, 3]},
        {"use": "gpm", "samples": 5, "threshold": 0.5},
        {"use": "freeze_important", "by": "magnitude", "share": 0.3, "stages": [1]},
        {"use": "interpolation", "method": "fisher", "samples": 6, "trained_weights": "ema", "stages": [1]},
        # In the midst of what was computed, entries lie closer than kinds of processors round alike, and another entry
        # that moves changes all that follows. So these come last, and part the few largest entries of a weight from the
        # others, which are far from them. The weights of the start are the same bits in both runs: of these the first
        # stage parts a third.
        {"use": "momentum_filter", "share": 0.001, "stages": [4]},
        {"use": "freeze_important", "name": "measured", "samples": 6, "share": 0.001, "stages": [4]},
    ],
}
"""Those of a trial; in the first three stages, or in those that are named."""
LONG = "rows and steps"
"""The trial with four stages, and with a model that stores its weights transposed."""

MORE = f"""
[[stage]]
name = "symbols"
adaptation = {{ use = "lora", rank = 4 }}
[stage.data]
train = {{ {FACTS}, relations = "symbol", limit = 6 }}
test = {{ {FACTS}, relations = "symbol", limit = 3 }}
[[stage]]
name = "numbers"
adaptation = {{ use = "full" }}
[stage.data]
train = {{ {FACTS}, relations = "number", limit = 6 }}
test = {{ {FACTS}, relations = "number", limit = 3 }}
"""


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
    tables = MITIGATIONS[request.param]
    head, *stages = (recipe.read_text() + MORE).split("[[stage]]")
    if request.param == LONG:
        still = "config = { resid_pdrop = 0.0, embd_pdrop = 0.0, attn_pdrop = 0.0 }"
        head = head.replace('"scratch"', f'"scratch"\narchitecture = "gpt2"\n{still}').replace("steps = 9", "steps = 4")
    else:
        del stages[2:]
    for number, stage in enumerate(stages, start=1):
        head += f"[[stage]]{stage}"
        for table in tables:
            if number in table.get("stages", (1, 2, 3)):
                head += "[[stage.mitigation]]\n"
                head += "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items() if key != "stages")
    path = written(recipe.parent, head, f"{name}.toml")
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
        {
            (path.parents[2].name, name): tensor
            for path in run.glob("stages/*/model/adapter/adapter_model.safetensors")
            for name, tensor in load_file(path).items()
        }
        for run in (tmp_path / "run", trial.alone)
    ]
    torch.testing.assert_close(*adapters, atol=1e-5, rtol=1e-5)
    assert {stage for stage, _ in adapters[1]} >= {"2-currencies"}
    config = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert config["architectures"] in (["LlamaForCausalLM"], ["GPT2LMHeadModel"])
    tables = [
        [dict(numbers(json.loads(path.read_text()))) for path in sorted(run.glob("stages/*/weights.json"))]
        for run in (tmp_path / "run", trial.alone)
    ]
    assert len(tables[1]) >= 2
    for here, there in zip(*tables, strict=True):
        assert here == pytest.approx(there, rel=1e-3, abs=1e-6)
    losses = [[event["loss"] for event in events_of(run, "step")] for run in (tmp_path / "run", trial.alone)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def numbers(told: Any, place: str = "") -> Iterator[tuple[str, float]]:
    """The numbers in a table of tables, with their places in it."""
    if isinstance(told, dict):
        for key, value in told.items():
            yield from numbers(value, f"{place}/{key}")
    elif isinstance(told, int | float):
        yield place, told


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
