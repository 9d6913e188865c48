"""The model card: front matter that the hub accepts, what was trained, the scores, and how to load it."""

from __future__ import annotations

import ast
from typing import Any

import pytest

from ftk.report.model_card import model_card

yaml = pytest.importorskip("yaml")

REPORT: dict[str, Any] = {
    "tasks": ["retain", "currencies"],
    "matrix": {"keyword_accuracy": [[0.99, 0.01], [0.97, 0.98]], "perplexity": [[10.0, None], [12.5, None]]},
    "higher_is_better": {"keyword_accuracy": True, "perplexity": False},
    "start": {"keyword_accuracy": [0.99, 0.01], "perplexity": [10.0, None]},
    "summary": {},
    "stages": [
        {
            "name": "currencies", "objective": "instruction", "adaptation": "lora", "steps": 1200, "tokens": 34567,
            "trainable_parameters": 1000, "total_parameters": 50000, "mitigations": {"ewc": {"seconds": 1.0}, "replay": {}},
        }
    ],
}  # fmt: skip


def front_matter(card: str) -> dict[str, Any]:
    _, matter, _ = card.split("---\n", 2)
    loaded: dict[str, Any] = yaml.safe_load(matter)
    return loaded


def test_the_front_matter_names_the_base_model_of_the_hub() -> None:
    card = model_card(REPORT, "support-bot", "org/base-135M")
    assert front_matter(card) == {"library_name": "transformers", "base_model": "org/base-135M", "tags": ["ftk"]}
    assert "# support-bot\n" in card
    assert "starting from `org/base-135M`" in card


@pytest.mark.parametrize("base", ["/home/someone/models/base", "../models/base", "C:\\models\\base", "./base"])
def test_a_folder_is_no_base_model_for_the_hub_and_its_place_stays_private(base: str) -> None:
    card = model_card(REPORT, "support-bot", base, adapter="adapter")
    assert "base_model" not in front_matter(card)
    assert "`base`" in card
    assert base not in card


def test_it_tells_the_training_with_its_mitigations_and_their_options() -> None:
    options = {"currencies": {"ewc": {"strength": 0.1, "labels": "empirical"}}}
    card = model_card(REPORT, "support-bot", mitigations=options)
    assert (
        "| currencies | instruction | lora | 1,200 | 34,567 | 1,000 of 50,000 |"
        ' ewc (strength = 0.1, labels = "empirical"), replay |'
    ) in card
    assert "made from nothing" in card


def test_it_carries_the_scores() -> None:
    card = model_card(REPORT, "support-bot")
    assert "| retain | keyword_accuracy | 0.990 | – | 0.970 | 98.0% |" in card
    assert "| retain | perplexity ↓ | 10.00 | – | 12.50 | 80.0% |" in card
    assert "| currencies | keyword_accuracy | 0.010 | 0.980 | 0.980 | – |" in card
    assert "| currencies | perplexity" not in card


def test_every_python_fragment_compiles_and_the_adapter_is_told_only_where_there_is_one() -> None:
    card = model_card(REPORT, "support-bot", "org/base", auto_class="AutoModelForMaskedLM", adapter="adapter")
    fragments = [part.split("```")[0] for part in card.split("```python\n")[1:]]
    assert len(fragments) == 2
    for fragment in fragments:
        ast.parse(fragment)
    assert "AutoModelForMaskedLM.from_pretrained" in fragments[0]
    assert "path/to/this/folder/adapter" in fragments[1]
    assert "peft" not in model_card(REPORT, "support-bot", "org/base")


def test_a_bar_in_a_name_does_not_break_the_table() -> None:
    report = {**REPORT, "stages": [{**REPORT["stages"][0], "name": "a|b"}]}
    assert "| a\\|b | instruction |" in model_card(report, "x")
