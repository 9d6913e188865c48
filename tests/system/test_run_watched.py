"""Evaluations during whole runs: their history, what stops early, which weights are kept, and resuming."""

from __future__ import annotations

import signal
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

import ftk
from ftk.cli import cli
from ftk.disk import bundles
from ftk.disk.bundles import read_bundle
from tests.system.forge import Death, Forge
from tests.system.small import FACTS, HEAD, events_of, report_of, untimed, weights, written

WATCHED = f"""{HEAD}
evaluate_every = 3
schedule = "constant"
[adaptation]
use = "lora"
rank = 4
dropout = 0.1
[data]
overlap = "allow"
train = {{ {FACTS}, relations = "capital", limit = 6 }}
validation = {{ {FACTS}, relations = "capital", limit = 3 }}
test = {{ {FACTS}, relations = "capital", limit = 3 }}
retain = {{ {FACTS}, relations = "iso_code", limit = 6 }}
retain_validation = {{ {FACTS}, relations = "iso_code", limit = 3 }}
retain_test = {{ {FACTS}, relations = "iso_code", limit = 3 }}
[[mitigation]]
use = "replay"
share = 0.25
[[evaluator]]
use = "perplexity"
"""
"""Validation rows are the test rows, so that scores can be compared."""

SCRIPTED = """
from ftk import Options, Variant, hookimpl
from ftk.parts import Evaluator, Metric

SCORES = {0: 0.1, 3: 0.9, 6: 0.5, 9: 0.4}

class Scripted(Evaluator):
    def __init__(self, options):
        pass
    def measure(self, model, task, ctx):
        return [Metric("scripted", SCORES.get(ctx.step, 0.0) if ctx.stage else 0.0, True)]

@hookimpl
def ftk_evaluators():
    return [Variant(name="scripted", summary="Says what it is told.", options="ftk:Options", build="ftk_say:Scripted")]
"""


def run(here: Path, *overrides: str, output: str) -> ftk.RunResult:
    return ftk.run(written(here, WATCHED), output=here / output, overrides=overrides)


def adapter(result: ftk.RunResult) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = load_file(result.folder / "model" / "adapter" / "adapter_model.safetensors")
    return tensors


def same(one: ftk.RunResult, other: ftk.RunResult) -> bool:
    return all(torch.equal(adapter(one)[name], tensor) for name, tensor in adapter(other).items())


def test_the_history_begins_at_the_start_ends_at_the_end_and_changes_nothing(here: Path) -> None:
    seen = run(here, output="seen")
    blind = run(here, "training.evaluate_every=0", output="blind")
    assert weights(seen.folder) == weights(blind.folder)
    (stage,) = seen.report["stages"]
    history = stage["history"]
    assert [entry["step"] for entry in history] == [0, 3, 6, 9]
    start, end = (entry["scores"] for entry in (history[0], history[-1]))
    assert [start[task]["perplexity"] for task in ("retain", "small")] == seen.report["start"]["perplexity"]
    assert [end[task]["perplexity"] for task in ("retain", "small")] == seen.report["matrix"]["perplexity"][-1]
    assert end["small"]["perplexity"] < start["small"]["perplexity"]
    assert (stage["stopped_at"], stage["best_step"], stage["kept_step"]) == (None, None, 9)
    events = events_of(seen.folder, "evaluated")
    assert [{key: event[key] for key in ("step", "tokens", "scores")} for event in events] == history
    assert all(event.keys() == {"time", "kind", "stage", "step", "steps", "tokens", "scores"} for event in events)
    assert blind.report["stages"][0]["history"] == []
    assert seen.report["schema"] == 2


def test_the_best_weights_are_those_of_the_best_evaluation(here: Path, add_plugin: Callable[[str, str], None]) -> None:
    add_plugin("ftk-say", SCRIPTED)
    scripted = "evaluator=[{ use = 'scripted' }]"
    kept = run(here, scripted, "training.keep=best", "training.checkpoint_every=4", output="kept")
    (stage,) = kept.report["stages"]
    assert (stage["steps"], stage["best_step"], stage["kept_step"], stage["stopped_at"]) == (9, 3, 3, None)
    assert [entry["criterion"] for entry in stage["history"]] == [0.1, 0.9, 0.5, 0.4]
    three = run(here, scripted, "training.steps=3", output="three")
    last = run(here, scripted, output="last")
    assert same(kept, three), "a constant rate: the first three steps of nine are three steps"
    assert not same(kept, last)
    assert "left the weights of its best evaluation, at step 3" in (kept.folder / "model" / "README.md").read_text()
    assert not (kept.folder / "checkpoints").exists()

    halved = "mitigation=[{ use = 'replay', share = 0.25 }, { use = 'interpolation', alpha = 0.5 }]"
    half = run(here, scripted, "training.keep=best", halved, output="half")
    for name, tensor in adapter(three).items():
        expected = 0.5 * tensor if "lora_B" in name else tensor
        torch.testing.assert_close(adapter(half)[name], expected, msg="`finish` acts on the best weights")


def test_what_leads_to_the_best_weights_ends_at_them(here: Path, add_plugin: Callable[[str, str], None]) -> None:
    """The path of `synaptic_intelligence` and an average of weights, as if the stage had ended at that step."""
    add_plugin("ftk-say", SCRIPTED)
    average = "{ use = 'interpolation', alpha = 1, trained_weights = 'ema' }"
    scripted = (
        f"mitigation=[{{ use = 'synaptic_intelligence' }}, {average}]", "evaluator=[{ use = 'scripted' }]",
        "adaptation={ use = 'full' }",
    )  # fmt: skip
    kept = run(here, *scripted, "training.keep=best", output="kept")
    three = run(here, *scripted, "training.steps=3", output="three")
    assert kept.report["stages"][0]["kept_step"] == 3
    assert weights(kept.folder) == weights(three.folder)
    found, expected = (
        read_bundle(result.folder / "stages" / "1-small" / "state")[0]["mitigation.synaptic_intelligence"]
        for result in (kept, three)
    )
    assert found["tasks"]["small"] == expected["tasks"]["small"]
    assert found["tasks"]["small"]["lowered"] > 0
    learned = [name for name in expected if name.startswith("learned/")]
    assert learned
    assert all(torch.equal(found[name], expected[name]) for name in learned)


def test_a_stage_that_no_longer_improves_ends(here: Path, add_plugin: Callable[[str, str], None]) -> None:
    add_plugin("ftk-say", SCRIPTED)
    scripted = "evaluator=[{ use = 'scripted' }]"
    early = run(here, scripted, "training.early_stopping.patience=1", output="early")
    (stage,) = early.report["stages"]
    assert (stage["steps"], stage["stopped_at"], stage["best_step"], stage["kept_step"]) == (6, 6, 3, 6)
    assert same(early, run(here, scripted, "training.steps=6", output="six"))
    patient = run(here, scripted, "training.early_stopping.patience=3", output="patient")
    assert patient.report["stages"][0]["steps"] == 9


def test_killed_at_any_moment_it_ends_with_the_same_history_and_weights(forge: Forge, tmp_path: Path) -> None:
    options = (
        "training.keep=best", "training.retention_weight=1", "training.checkpoint_every=2",
        "training.keep_checkpoints=1", "training.steps=10", "training.early_stopping.patience=9",
    )  # fmt: skip
    settings = [argument for option in options for argument in ("--set", option)]
    recipe = written(tmp_path, WATCHED)

    def start(output: str, death: Death | None = None) -> int:
        code, told = forge.run("run", recipe, "--output", tmp_path / output, *settings, death=death)
        assert code == (-signal.SIGKILL if death else 0), told
        return code

    start("whole")
    for kind, data in (
        ("evaluated", {"step": 3}),
        ("checkpoint", {"step": 4}),
        ("step", {"step": 8}),
        ("evaluated", {"step": 10}),
    ):
        start("cut", Death(kind, data))
    start("cut")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert weights(cut) == weights(whole)
    assert untimed(report_of(cut)) == untimed(report_of(whole))
    (stage,) = report_of(cut)["stages"]
    assert [entry["step"] for entry in stage["history"]] == [0, 3, 6, 9, 10]


def test_a_damaged_best_checkpoint_is_named_with_the_mend(here: Path, add_plugin: Callable[[str, str], None]) -> None:
    add_plugin("ftk-say", SCRIPTED)

    def harm(event: Any) -> None:
        if event.kind == "step" and event.data["step"] == 9:
            (here / "run" / "checkpoints" / "step-000003" / "adaptation.safetensors").unlink()

    scripted = ["evaluator=[{ use = 'scripted' }]", "training.keep=best", "training.keep_checkpoints=1"]
    with pytest.raises(ftk.RunFailed, match=r"step-000003.*is missing\n  it holds the stage's best weights; delete"):
        ftk.run(written(here, WATCHED), output=here / "run", overrides=scripted, observers=[harm])


@pytest.mark.parametrize(
    ("evaluator", "said"),
    [
        ("perplexity", "no evaluator measures `scriptd`\n      valid here: perplexity"),
        ("scripted", "no evaluator measures `scriptd`\n  did you mean `scripted`?"),
    ],
)
def test_a_metric_that_nobody_measures_is_told_before_training(
    evaluator: str, said: str, here: Path, add_plugin: Callable[[str, str], None]
) -> None:
    """By the recipe's check where the evaluators tell their metrics, else when the start was measured."""
    add_plugin("ftk-say", SCRIPTED)
    settings = [f"evaluator=[{{ use = '{evaluator}' }}]", "training.keep=best", "training.best_by=scriptd"]
    arguments = [word for setting in settings for word in ("--set", setting)]
    result = CliRunner().invoke(cli, ["run", str(written(here, WATCHED)), *arguments])
    assert result.exit_code == 2, result.output
    assert f"training.best_by: {said}" in result.stderr
    began = (here / "runs" / "small" / "events.jsonl").exists()
    assert began == (evaluator == "scripted")
    assert not began or not events_of(here / "runs" / "small", "stage_started")


def test_a_full_disk_ends_the_run_at_the_next_step_and_the_run_goes_on_when_there_is_room(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(here, output="whole")
    writes = count()
    plain = bundles.save_file

    def full(*arguments: Any) -> None:
        if next(writes) >= 3:  # the adaptation and the optimizer of the first checkpoint fit
            raise OSError(28, "No space left on device")
        plain(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(bundles, "save_file", full)
        with pytest.raises(ftk.RunFailed, match=r"step-00000\d: .* cannot be written: No space left on device\n  make"):
            run(here, output="cut")
    again = run(here, output="cut")
    assert weights(again.folder) == weights(whole.folder)
    assert untimed(again.report) == untimed(whole.report)


def test_explain_tells_of_it(here: Path) -> None:
    settings = ["--set", "training.keep=best", "--set", "training.early_stopping.patience=2"]
    told = CliRunner().invoke(cli, ["run", str(written(here, WATCHED)), *settings, "--explain"]).output
    expected = ("every 3 steps: measure every task", "end after 2 without an improvement", "keep the best weights")
    assert all(line in told for line in expected)


def test_a_line_tells_of_each_evaluation(here: Path) -> None:
    result = CliRunner().invoke(cli, ["run", str(written(here, WATCHED))])
    assert result.exit_code == 0, result.output
    assert result.output.count("  evaluated at ") == 4
    assert "  evaluated at 3/9: retain perplexity " in result.output
