"""Every mitigation in one run, of full tuning and then LoRA, that may be stopped."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest
from torch import Tensor

import ftk
from ftk.events import RunEvent
from ftk.parts import Context, Mitigation
from ftk.planning.machine import this_machine
from ftk.planning.plan import Planner
from ftk.plugin.discovery import load_registry
from ftk.recipe.reading import load_recipe
from ftk.running.composition import Composition
from tests.system.small import FACTS, PIPELINE, report_of, untimed, weights, written

EVERYWHERE = {
    "l2sp": 'anchor = "run"',
    "synaptic_intelligence": "",
    "mas": "samples = 6\nevery = 2",
    "ewc": 'samples = 6\nfisher = "factored"',
    "distill": "weight = 0.5",
    "cached": 'use = "distill"\nrows = "both"\nteacher = "cached"\ntop_k = 20\nshare = 0.2',
    "der": 'share = { start = 0.3, end = 0.1 }\nmemory = 5\nchoice = "reservoir"\nwhen = "along"',
    "replay": 'choice = "herding"\nshare = 0.15\nbuffer_size = 4',
    "pcgrad": "",
    "agem": "rows_per_step = 2",
    "gpm": "samples = 4\nthreshold = 0.5",
}
"""In both stages, in the order that docs/recipes.md gives."""
FULL = {
    "momentum_filter": "share = 0.5",
    "freeze_important": "samples = 6\nshare = 0.3",
    "interpolation": 'alpha = 0.9\ntrained_weights = "ema"',
}
"""In the first stage: what acts on the model's own weights, and at its end."""
LORA = {"olora": "", "budget": "every = 1\ntrials = 2"}
"""In the second."""


def tables(mitigations: dict[str, str]) -> str:
    found = []
    for name, options in mitigations.items():
        found.append(f'[[stage.mitigation]]\nname = "{name}"\n')
        found.append(f"{options}\n" if options.startswith("use") else f'use = "{name}"\n{options}\n')
    return "".join(found)


def rows(relation: str) -> str:
    return f'{{ {FACTS}, relations = "{relation}", limit = 3 }}'


def recipe() -> str:
    head, _, rest = PIPELINE.partition("[[mitigation]]")
    capitals, _, currencies = rest.partition("[[stage]]")[2].partition("[[stage]]")
    head = head.replace("overlap", f"retain_validation = {rows('iso_code')}\noverlap")
    head = head.replace("steps = 9\nbatch_size = 4", "steps = 4\nbatch_size = 8")
    stages = (
        f"{capitals}validation = {rows('capital')}\n{tables(EVERYWHERE | FULL)}",
        f"{currencies}validation = {rows('currency')}\n{tables(EVERYWHERE | LORA)}",
    )
    return f'{head}[[evaluator]]\nuse = "perplexity"\n' + "".join(f"[[stage]]{stage}" for stage in stages)


def test_none_is_left_out() -> None:
    known = {entry.variant.name for entry in load_registry(third_party=False).entries("mitigation")}
    assert known == {*EVERYWHERE, *FULL, *LORA} - {"cached"}


def held_by(parts: Mapping[str, Mitigation]) -> dict[str, int]:
    """Bytes of the tensors in the state of each."""
    states = {name: part.state_dict().values() for name, part in parts.items()}
    return {n: sum(t.numel() * t.element_size() for t in its if isinstance(t, Tensor)) for n, its in states.items()}


@pytest.fixture(scope="module")
def run_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[tuple[int, str], int]]:
    """The recipe, the folder of a run of it, and the most bytes that each mitigation held, by stage and name."""
    here = tmp_path_factory.mktemp("together")
    path, held = written(here, recipe()), Counter[tuple[int, str]]()
    after_step = Composition.after_step

    def watched(self: Composition, ctx: Context) -> None:
        after_step(self, ctx)
        for name, size in held_by(self.parts).items():
            held[ctx.stage, name] = max(held[ctx.stage, name], size)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Composition, "after_step", watched)
        ftk.run(path, output=here / "whole")
    return path, here / "whole", dict(held)


def test_a_plan_counts_for_each_at_least_what_it_held(run_once: tuple[Path, Path, dict[tuple[int, str], int]]) -> None:
    path, _, held = run_once
    planner = Planner(load_recipe(path), this_machine(1))
    plans = {number: planner.stage(number) for number in (1, 2)}
    assert [plan.unknown for plan in plans.values()] == ["", ""]
    partly = {"pcgrad", "freeze_important"}  # which read values in a step, and where they freeze
    assert {name for plan in plans.values() for name in plan.partly} == partly
    for (stage, name), size in held.items():
        step = {station.name: station.parts for station in plans[stage].stations}["step"]
        planned = step.get(f"mitigation {name}", 0)
        numbers = 200 if name == "der" else 0  # of rows, a list but in its state
        assert planned >= size - numbers, (stage, name, planned, size)
        if size:
            assert planned <= 4 * size + 20_000 or name == "gpm", (stage, name, planned, size)
    kept = {name for (stage, name), size in held.items() if size and stage == 2}
    assert kept >= {"synaptic_intelligence", "mas", "ewc", "cached", "der", "gpm"}


def test_all_at_once_end_in_the_same_bits_wherever_they_were_stopped(
    tmp_path: Path, run_once: tuple[Path, Path, dict[tuple[int, str], int]]
) -> None:
    path, finished, _ = run_once

    def stop(event: RunEvent) -> None:
        if event.kind == "step" and event.data["step"] == 2:
            signal.raise_signal(signal.SIGINT)

    for _ in range(2):  # once in each stage
        with pytest.raises(ftk.Interrupted, match="after step 3; saved"):
            ftk.run(path, output=tmp_path / "stopped", observers=[stop])
    ftk.run(path, output=tmp_path / "stopped")
    assert weights(tmp_path / "stopped") == weights(finished)
    whole, stopped = report_of(finished), report_of(tmp_path / "stopped")
    assert untimed(whole["stages"]) == untimed(stopped["stages"])
    earlier, told = (stage["mitigations"] for stage in whole["stages"])
    assert earlier["freeze_important"]["frozen_weights"] > 0
    assert list(told["mas"]["tasks"]) == ["retain", "capitals"]
    assert list(told["synaptic_intelligence"]["tasks"]) == ["capitals", "currencies"]
    assert sum(told["der"]["rows"].values()) == 5
    assert (told["distill"]["teacher"], told["cached"]["teacher"]) == ("live", "cached")
    assert told["pcgrad"]["pairs"] > 0
    assert [point["step"] for point in told["budget"]["course"]] == [1, 2, 3]
