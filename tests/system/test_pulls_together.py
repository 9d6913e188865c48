"""All that acts on the weights, in one run of full tuning and then LoRA that may be stopped."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

import ftk
from ftk.events import RunEvent
from tests.system.small import PIPELINE, report_of, untimed, weights, written

HEAD, _, REST = PIPELINE.partition("[[mitigation]]")
PULLS = """
[[mitigation]]
use = "l2sp"
anchor = "run"
[[mitigation]]
use = "synaptic_intelligence"
[[mitigation]]
use = "mas"
samples = 6
every = 2
[[mitigation]]
use = "ewc"
samples = 6
fisher = "factored"
[[mitigation]]
use = "replay"
share = 0.25
[[mitigation]]
use = "agem"
rows_per_step = 2
"""
FILTER = '[[mitigation]]\nuse = "momentum_filter"\nshare = 0.5\n'
FREEZE = '[[mitigation]]\nuse = "freeze_important"\nsamples = 6\nshare = 0.3\n'


def test_all_of_them_together_end_in_the_same_bits_wherever_they_were_stopped(tmp_path: Path) -> None:
    """What needs the model's own weights stands in the first stage alone."""
    first = (FILTER + PULLS + FREEZE).replace("[[mitigation]]", "[[stage.mitigation]]")
    capitals, _, currencies = REST.partition("[[stage]]")[2].partition("[[stage]]")
    text = f'{HEAD}{PULLS}[[evaluator]]\nuse = "perplexity"\n[[stage]]{capitals}{first}[[stage]]{currencies}'
    recipe = written(tmp_path, text.replace("steps = 9", "steps = 4"))
    ftk.run(recipe, output=tmp_path / "whole")

    def stop(event: RunEvent) -> None:
        if event.kind == "step" and event.data["step"] == 2:
            signal.raise_signal(signal.SIGINT)

    for _ in range(2):  # once in each stage
        with pytest.raises(ftk.Interrupted, match="after step 3; saved"):
            ftk.run(recipe, output=tmp_path / "stopped", observers=[stop])
    ftk.run(recipe, output=tmp_path / "stopped")
    assert weights(tmp_path / "stopped") == weights(tmp_path / "whole")
    whole, stopped = (report_of(tmp_path / name) for name in ("whole", "stopped"))
    assert untimed(whole["stages"]) == untimed(stopped["stages"])
    earlier, told = (stage["mitigations"] for stage in whole["stages"])
    assert earlier["freeze_important"]["frozen_weights"] > 0
    assert list(told["mas"]["tasks"]) == ["retain", "capitals"]
    assert list(told["synaptic_intelligence"]["tasks"]) == ["capitals", "currencies"]
    assert told["l2sp"]["new_weights"] == told["synaptic_intelligence"]["guarded_weights"], "new: from scratch"
