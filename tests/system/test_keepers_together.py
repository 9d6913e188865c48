"""All that keeps by rows and predictions, with a pull and a gradient editor, in one run that may be stopped."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

import ftk
from ftk.events import RunEvent
from tests.system.small import PIPELINE, report_of, untimed, weights, written

REPLAY = '[[mitigation]]\nuse = "replay"\nshare = 0.25\n'
KEEPERS = """
[[mitigation]]
use = "distill"
weight = 0.5
[[mitigation]]
name = "cached"
use = "distill"
rows = "both"
teacher = "cached"
top_k = 20
share = 0.2
[[mitigation]]
use = "der"
share = { start = 0.3, end = 0.1 }
memory = 5
choice = "reservoir"
when = "along"
[[mitigation]]
use = "replay"
choice = "herding"
share = 0.15
buffer_size = 4
[[mitigation]]
use = "pcgrad"
"""
STEPS = "steps = 9\nbatch_size = 4"


def test_all_of_them_together_end_in_the_same_bits_wherever_they_were_stopped(tmp_path: Path) -> None:
    assert REPLAY in PIPELINE
    assert STEPS in PIPELINE
    text = PIPELINE.replace(REPLAY, KEEPERS).replace(STEPS, "steps = 4\nbatch_size = 8")
    text = text.replace('[[evaluator]]\nuse = "keyword_accuracy"\nmax_new_tokens = 3\n', "")
    recipe = written(tmp_path, text)
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
    told = whole["stages"][1]["mitigations"]
    assert sum(told["der"]["rows"].values()) == 5
    assert (told["distill"]["teacher"], told["cached"]["teacher"]) == ("live", "cached")
    assert told["pcgrad"]["pairs"] > 0
