"""Runs whose rows are drawn anew each time: stopped, resumed, cut in another way, and measured."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from click.testing import CliRunner

import ftk
from ftk.cli import cli
from ftk.events import RunEvent
from tests.system.small import FACTS, report_of, untimed, weights, written

MASKED = f"""
name = "masked"
seed = 3
[model]
use = "scratch"
architecture = "bert"
hidden_size = 32
layers = 1
heads = 2
vocabulary_size = 300
config = {{ hidden_dropout_prob = 0.0, attention_probs_dropout_prob = 0.0 }}
[objective]
use = "masked_lm"
max_length = 32
packing = true
[training]
steps = 6
batch_size = 4
micro_batch_size = 2
learning_rate = 3e-3
checkpoint_every = 3
log_every = 1
precision = "fp32"
[data]
retain = {{ {FACTS}, relations = "iso_code", limit = 6 }}
retain_test = {{ {FACTS}, relations = "iso_code", limit = 3 }}
overlap = "allow"
[[mitigation]]
use = "ewc"
samples = 6
labels = "sample"
[[mitigation]]
use = "replay"
share = 0.25
[[evaluator]]
use = "perplexity"
[adaptation]
use = "lora"
rank = 4
[[stage]]
name = "capitals"
[stage.data]
train = {{ {FACTS}, relations = "capital", limit = 6 }}
test = {{ {FACTS}, relations = "capital", limit = 3 }}
"""


def run(here: Path, output: str, *overrides: str, stop: int = 0) -> Path:
    def watch(event: RunEvent) -> None:
        if event.kind == "step" and event.data["step"] == stop:
            signal.raise_signal(signal.SIGINT)

    return ftk.run(written(here, MASKED), output=here / output, overrides=overrides, observers=[watch]).folder


def test_masks_are_the_same_after_a_restart_and_in_other_micro_batches(tmp_path: Path) -> None:
    whole = run(tmp_path, "whole")
    with pytest.raises(ftk.Interrupted):
        run(tmp_path, "again", stop=3)
    again = run(tmp_path, "again")
    assert weights(again) == weights(whole)
    assert untimed(report_of(again)) == untimed(report_of(whole))
    other = run(tmp_path, "other", "training.micro_batch_size=4")
    told, expected = (report_of(folder)["matrix"]["perplexity"] for folder in (other, whole))
    assert told[-1] == pytest.approx(expected[-1], rel=1e-4)
    assert told[0] == pytest.approx(expected[0], rel=1e-6), "the starting model, measured with the same masks"
    seeded = run(tmp_path, "seeded", "seed=4", "model.seed=3")
    assert report_of(seeded)["start"] == report_of(whole)["start"], "under another seed too"
    assert weights(seeded) != weights(whole)


def test_a_plan_needs_no_values_to_pack_rows(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["plan", str(written(tmp_path, MASKED))])
    assert done.exit_code == 0, done.output
    assert "activations" in done.output
    assert "depends on values" not in done.output
