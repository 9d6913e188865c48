"""What a stage changes on the model while it trains acts in whole runs, and is undone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import ftk
from ftk.events import RunEvent
from tests.system.one_stage import run, stopped_at, weights
from tests.system.small import ONE_STAGE, events_of, written
from tests.system.small import weights as weights_of


@pytest.fixture
def recomputed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Grows whenever a layer's activations are left to be recomputed."""
    from transformers import modeling_utils

    seen = []
    plain = modeling_utils.checkpoint

    def counted(*arguments: Any, **options: Any) -> Any:
        seen.append(options)
        return plain(*arguments, **options)

    monkeypatch.setattr(modeling_utils, "checkpoint", counted)
    return seen


@pytest.mark.parametrize("adaptation", ["{ use = 'full' }", "{ use = 'lora', rank = 4 }"])
def test_gradient_checkpointing_recomputes_and_changes_nothing(
    adaptation: str, here: Path, recomputed: list[Any]
) -> None:
    common = (f"adaptation={adaptation}", "training.steps=4")
    without = run(here, *common, output="without")
    assert not recomputed
    saving = run(here, *common, "training.gradient_checkpointing=true", output="saving")
    assert len(recomputed) >= 4
    for name, weight in weights(without).items():
        torch.testing.assert_close(weights(saving)[name], weight, atol=1e-6, rtol=1e-5)


def test_gradient_checkpointing_is_refused_where_the_model_cannot(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.LlamaPreTrainedModel.supports_gradient_checkpointing", False)
    with pytest.raises(ftk.UserError, match="a LlamaForCausalLM cannot recompute"):
        run(here, "training.gradient_checkpointing=true", output="run")


def test_gradient_checkpointing_ends_with_its_stage(here: Path, recomputed: list[Any]) -> None:
    stages = """
[[stage]]
name = "first"
training = { steps = 2, gradient_checkpointing = true }
[[stage]]
name = "second"
training = { steps = 2 }
"""
    counts: list[int] = []

    def watch(event: RunEvent) -> None:
        if event.kind == "stage_finished":
            counts.append(len(recomputed))

    ftk.run(written(here, ONE_STAGE + stages), observers=[watch])
    assert counts[0] >= 2
    assert counts[1] == counts[0]


def test_the_loss_in_chunks_trains_the_same_and_is_for_many_logits(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ftk_plugins.objectives import token_loss

    seen: list[int] = []
    plain = token_loss.chunked_cross_entropy

    def counted(*arguments: Any, **options: Any) -> torch.Tensor:
        seen.append(options["chunks"])
        return plain(*arguments, **options)

    monkeypatch.setattr(token_loss, "chunked_cross_entropy", counted)
    once, auto = (
        weights(run(here, "training.steps=2", f"training.loss_chunks={chunks}", output=chunks))
        for chunks in ("1", "auto")
    )
    assert not seen
    chunked = weights(run(here, "training.steps=2", "training.loss_chunks=3", output="3"))
    assert set(seen) == {3}
    for name, weight in once.items():
        assert torch.equal(auto[name], weight)
        # Adam's first steps turn the rounding of a gradient near zero into a step; a wrong gradient moves all by 3e-3.
        assert float((chunked[name] - weight).norm()) <= 1e-4 * float(weight.norm()), name


def test_label_smoothing_is_in_the_loss_that_is_told_and_not_in_scores(here: Path) -> None:
    """The smoothed loss is linear in the share; the model before the first step is one and the same."""
    losses, starts, ends = [], [], []
    for share in (0.0, 0.1, 0.3):
        result = run(here, "training.steps=1", f"training.label_smoothing={share}", output=f"run{share}")
        losses.append(events_of(result.folder, "step")[0]["loss"])
        starts.append(result.report["start"])
        ends.append(weights(result))
    assert losses[1] - losses[0] == pytest.approx((losses[2] - losses[0]) / 3, rel=1e-3)
    assert abs(losses[2] - losses[0]) > 1e-4
    assert starts[0] == starts[1] == starts[2]
    assert any(not torch.equal(ends[2][name], weight) for name, weight in ends[0].items())


def test_what_is_switched_for_training_leaves_no_mark_on_the_model(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its configuration is that of a plain run; and a resumed run ends with the same bits."""
    compiled = []

    def compiler(function: Any, **options: Any) -> Any:
        compiled.append(type(function).__name__)
        return function

    monkeypatch.setattr(torch, "compile", compiler)
    settings = (
        "training.steps=4", "training.dropout=0.3", "training.attention=eager", "training.neftune_noise=5",
        "training.compile=true", "training.gradient_checkpointing=true",
    )  # fmt: skip
    plain = run(here, settings[0], output="plain").folder / "model"
    whole = run(here, *settings, output="whole").folder / "model"
    stopped_at(here, 3, *settings, output="stopped")
    run(here, *settings, output="stopped")
    assert weights_of(here / "whole") == weights_of(here / "stopped")
    assert weights_of(here / "whole") != weights_of(here / "plain")
    assert compiled.count("LlamaForCausalLM") == 3
    for name in ("config.json", "generation_config.json"):
        assert (whole / name).read_text() == (plain / name).read_text()
