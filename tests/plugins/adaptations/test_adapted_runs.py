"""Short runs under each adaptation with EWC, replay and interpolation: stopped and resumed, and what EWC holds."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import ftk
from ftk.events import RunEvent
from tests.system.small import FACTS, HEAD, report_of, weights, written

RECIPE = f"""{HEAD}
[data]
overlap = "allow"
train = {{ {FACTS}, relations = "capital", limit = 6 }}
retain = {{ {FACTS}, relations = "iso_code", limit = 6 }}
"""
MITIGATIONS = """
[[mitigation]]
use = "ewc"
samples = 6
[[mitigation]]
use = "replay"
share = 0.25
[[mitigation]]
use = "interpolation"
alpha = 0.5
"""
DOCS = Path(__file__).parents[3] / "docs" / "variants" / "adaptations"
ADAPTATIONS = {
    "adalora": '{ use = "adalora", rank = 2, every = 2 }',
    "dora": '{ use = "dora", rank = 4, dropout = 0.1 }',
    "ia3": '{ use = "ia3" }',
    "peft": '{ use = "peft", method = "vera", config = { r = 8 } }',
    "lora": '{ use = "lora", rank = 4, modules_to_save = ["embed_tokens"] }',
}


@pytest.fixture(autouse=True)
def _on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")


def run(here: Path, text: str, output: str, observers: Any = ()) -> Path:
    return ftk.run(written(here, text), output=here / output, observers=observers).folder


@pytest.mark.parametrize("name", ADAPTATIONS)
def test_stopped_and_resumed_under_all_mitigations_it_ends_in_the_same_bits(name: str, tmp_path: Path) -> None:
    text = recipe(name, MITIGATIONS)
    whole = run(tmp_path, text, "whole")

    def stop(event: RunEvent) -> None:
        if event.kind == "step" and event.data["step"] == 4:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(ftk.Interrupted):
        run(tmp_path, text, "stopped", [stop])
    assert weights(run(tmp_path, text, "stopped")) == weights(whole)
    card = (whole / "model" / "README.md").read_text(encoding="utf-8")
    representable = name == "lora"
    assert (whole / "model" / "adapter").is_dir() == representable
    assert ("it holds 0.5 of what" in card) != representable


@pytest.mark.parametrize("name", ADAPTATIONS)
def test_ewc_holds_what_the_retained_rows_depend_on(name: str, tmp_path: Path) -> None:
    """A stiff EWC keeps the weights near their start; none of it lets them go where the task pulls them."""
    start, free, held = (
        load_file(run(tmp_path, recipe(name, mitigation), f"run-{number}") / "model" / "model.safetensors")
        for number, mitigation in enumerate((
            '[[mitigation]]\nuse = "interpolation"\nalpha = 0.0\n',
            "",
            '[[mitigation]]\nuse = "ewc"\nsamples = 6\nstrength = 10.0\n',
        ))
    )  # fmt: skip
    distances = [sum(float((end[key] - start[key]).square().sum()) for key in start) for end in (free, held)]
    assert 0 < distances[1] < 0.5 * distances[0]


@pytest.mark.parametrize("name", [name for name in ADAPTATIONS if name != "lora"])
def test_the_fragment_of_its_page_runs_with_ewc(name: str, tmp_path: Path) -> None:
    page = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    fragment = page.partition("```toml\n")[2].partition("```")[0]
    assert f'use = "{name}"' in fragment
    folder = run(tmp_path, RECIPE + fragment.replace('use = "ewc"', 'use = "ewc"\nsamples = 6'), "run")
    assert report_of(folder)["stages"][0]["mitigations"]["ewc"]["guarded_weights"] > 0
    assert (folder / "model" / "adapter").is_dir()


def recipe(name: str, mitigations: str) -> str:
    return f"adaptation = {ADAPTATIONS[name]}\n{RECIPE}{mitigations}"
