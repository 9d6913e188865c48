"""Thawing and gradients by source: on two processes what one makes, and after a kill the same bits."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.core.conftest import install
from tests.system.forge import Death, Forge
from tests.system.small import FACTS, HEAD, report_of, weights, written
from tests.system.test_distributed import start_ranks

PLUGIN = """
from ftk import Variant, hookimpl

@hookimpl
def ftk_adaptations():
    return [Variant(name="thawing", summary="Thaws.", options="ftk_plugins.adaptations.full.options:FullOptions",
                    build="ftk_apart_parts:Thawing", provides=("merge", "weight-drift", "weight-scale", "sharding"))]

@hookimpl
def ftk_mitigations():
    return [Variant(name="apart", summary="Projects.", options="ftk_plugins.adaptations.full.options:FullOptions",
                    build="ftk_apart_parts:Apart", needs=("source-gradients",), provides=("sharding",))]
"""

PARTS = """
import torch
from ftk.parts import Mitigation
from ftk_plugins.adaptations.full.full import FullTuning

class Thawing(FullTuning):
    def attach(self, model):
        super().attach(model)
        self._set(model, 0)
        return model
    def _set(self, model, step):
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(step >= 4 or ".mlp." in name)
    def before_step(self, ctx):
        before = [p.requires_grad for p in ctx.model.parameters()]
        self._set(ctx.model, ctx.step)
        return before != [p.requires_grad for p in ctx.model.parameters()]

class Apart(Mitigation):
    def __init__(self, options):
        pass
    def edit_gradients(self, gradients, ctx):
        assert set(gradients.by_source) == {"train", "replay/retain"}, set(gradients.by_source)
        own, kept = gradients.by_source["train"], gradients.by_source["replay/retain"]
        for name, gradient in gradients.items():
            gradient.copy_(own[name] + 2 * kept[name])
"""

RECIPE = f"""{HEAD.replace("batch_size = 4", "batch_size = 8")}
[adaptation]
use = "thawing"
[[mitigation]]
use = "replay"
share = 0.3
[[mitigation]]
use = "ewc"
samples = 6
[[mitigation]]
use = "apart"
[[evaluator]]
use = "perplexity"
[data]
overlap = "allow"
train = {{ {FACTS}, relations = "capital", limit = 6 }}
test = {{ {FACTS}, relations = "capital", limit = 3 }}
retain = {{ {FACTS}, relations = "iso_code", limit = 6 }}
retain_test = {{ {FACTS}, relations = "iso_code", limit = 3 }}
"""


@pytest.fixture(scope="module")
def made(forge: Forge, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The recipe, run by one process, and what its plugins need to be found."""
    folder = tmp_path_factory.mktemp("changing")
    install(folder, "ftk-apart", {"ftk_apart.py": PLUGIN, "ftk_apart_parts.py": PARTS}, {"apart": "ftk_apart"}, "1.0")
    environment = {"PYTHONPATH": str(folder)}
    code, told = forge.run("run", written(folder, RECIPE), "--output", folder / "run", environment=environment)
    assert code == 0, told
    return folder, environment


def test_killed_before_and_after_it_thaws_it_ends_in_the_same_bits(
    made: tuple[Path, dict[str, str]], forge: Forge, tmp_path: Path
) -> None:
    folder, environment = made
    run = ("run", folder / "recipe.toml", "--output", tmp_path / "run")
    for step in (4, 8):
        code, told = forge.run(*run, death=Death("step", {"step": step}), environment=environment)
        assert code == -signal.SIGKILL, told
    code, told = forge.run(*run, environment=environment)
    assert code == 0, told
    assert weights(tmp_path / "run") == weights(folder / "run")


@pytest.mark.parametrize("sharding", ["none", "full"])
def test_two_processes_make_what_one_makes(
    made: tuple[Path, dict[str, str]], forge: Forge, tmp_path: Path, sharding: str
) -> None:
    folder, environment = made
    run = ("run", folder / "recipe.toml", "--output", tmp_path / "run", "--set", f"training.sharding={sharding}")
    ranks = start_ranks(forge, *run, environment=environment)
    for rank in ranks:
        assert rank.wait() == 0, "\n".join(rank.told() for rank in ranks)
    there, here = (load_file(at / "run" / "model" / "model.safetensors") for at in (folder, tmp_path))
    for name, weight in there.items():
        torch.testing.assert_close(here[name], weight, atol=2e-5, rtol=1e-5, msg=lambda told, n=name: f"{n}: {told}")
    one, two = (report_of(at / "run")["stages"][0] for at in (folder, tmp_path))
    assert one["trainable_parameters"] == two["trainable_parameters"] == two["total_parameters"]
