"""The model card: front matter that the hub accepts, what was trained, the scores, and how to load it."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from ftk.plugin.options import Options
from ftk.plugin.variant import Variant
from ftk.recipe.specs import DataSpec, PartSpec, Recipe, StageSpec
from ftk.recipe.training import Training
from ftk.report.model_card import model_card

yaml = pytest.importorskip("yaml")


class Folder(Options):
    """Options of a model source that names a place."""

    path: str


class Guard(Options):
    """Options of a mitigation."""

    strength: float = 0.1
    labels: Literal["empirical", "exact"] = "empirical"


def part(kind: str, use: str, options: Options, name: str = "") -> PartSpec:
    provides = ("merge",) if use == "lora" else ()
    variant = Variant(name=use, summary="For tests.", options="a:b", build="a:b", provides=provides)
    return PartSpec(kind, use, name or use, options, variant, "somebody", f"{kind}.{use}")


def recipe(start: str | None, stage: str = "currencies") -> Recipe:
    model = part("model", "scratch", Options()) if start is None else part("model", "pretrained", Folder(path=start))
    objective, rows = part("objective", "instruction", Options()), part("dataset", "files", Options())
    guards = (part("mitigation", "ewc", Guard(), name="anchor"), part("mitigation", "replay", Options()))
    stages = (
        StageSpec(stage, objective, part("adaptation", "lora", Options()), DataSpec(rows), guards, (), Training()),
    )
    return Recipe("support-bot", 0, model, rows, None, rows, objective, (), stages, "recipe.toml", "")


REPORT: dict[str, Any] = {
    "ftk": "0.1.0",
    "tasks": ["retain", "currencies"],
    "matrix": {"keyword_accuracy": [[0.99, 0.01], [0.97, 0.98]], "perplexity": [[10.0, None], [12.5, None]]},
    "higher_is_better": {"keyword_accuracy": True, "perplexity": False},
    "start": {"keyword_accuracy": [0.99, 0.01], "perplexity": [10.0, None]},
    "summary": {},
    "stages": [
        {
            "name": "currencies", "steps": 1200, "kept_step": 1200, "tokens": 34567,
            "trainable_parameters": 1000, "total_parameters": 50000,
        }
    ],
}  # fmt: skip


def front_matter(card: str) -> dict[str, Any]:
    _, matter, _ = card.split("---\n", 2)
    loaded: dict[str, Any] = yaml.safe_load(matter)
    return loaded


def test_the_front_matter_names_the_base_model_of_the_hub() -> None:
    card = model_card(REPORT, recipe("org/base-135M"))
    assert front_matter(card) == {
        "library_name": "transformers",
        "base_model": "org/base-135M",
        "tags": ["ftk"],
    }
    assert "# support-bot\n" in card
    assert "starting from `org/base-135M`" in card


@pytest.mark.parametrize(
    "start", ["/home/someone/models/base", "../models/base", "C:\\models\\base", "./base", "models/base"]
)
def test_a_folder_is_no_base_model_for_the_hub_and_its_place_stays_private(
    start: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "base").mkdir(parents=True)
    card = model_card(REPORT, recipe(start), adapter="adapter")
    assert "base_model" not in front_matter(card)
    assert "`base`" in card
    assert start not in card


def test_a_model_made_from_nothing_has_no_base() -> None:
    card = model_card(REPORT, recipe(None))
    assert "base_model" not in front_matter(card)
    assert "starting from a model of the source `scratch`" in card


def test_it_tells_the_training_with_every_option_of_the_mitigations() -> None:
    card = model_card(REPORT, recipe("org/base"))
    assert "| currencies | instruction | lora | anchor, replay | 1,200 | 34,567 | 1,000 of 50,000 |" in card
    assert '- `anchor` (`ewc`): `strength = 0.1, labels = "empirical"`' in card
    assert "- `replay`: no options" in card
    assert "learning_rate = 0.0002" in card


def test_it_carries_the_scores() -> None:
    card = model_card(REPORT, recipe("org/base"))
    assert "| retain | keyword_accuracy | 0.990 | – | 0.970 | 98.0% |" in card
    assert "| retain | perplexity ↓ | 10.00 | – | 12.50 | 80.0% |" in card
    assert "| currencies | keyword_accuracy | 0.010 | 0.980 | 0.980 | – |" in card
    assert "| currencies | perplexity" not in card


def test_every_python_fragment_compiles_and_the_adapter_is_told_only_where_there_is_one() -> None:
    card = model_card(REPORT, recipe("org/base"), head="image_classification", adapter="adapter")
    fragments = [text.split("```")[0] for text in card.split("```python\n")[1:]]
    assert len(fragments) == 2
    for fragment in fragments:
        ast.parse(fragment)
    assert "AutoModelForImageClassification.from_pretrained" in fragments[0]
    assert "AutoImageProcessor.from_pretrained" in fragments[0]
    assert "path/to/this/folder/adapter" in fragments[1]
    assert "peft" not in model_card(REPORT, recipe("org/base"))


def test_it_says_that_an_adapter_which_does_not_merge_belongs_to_the_scores() -> None:
    whole = recipe("org/base")
    beside = replace(whole, stages=(replace(whole.stages[0], adaptation=part("adaptation", "prompt", Options())),))
    card = model_card(REPORT, beside, adapter="adapter")
    assert "which the last stage started from. Only with what it learned has it the scores" in card
    assert 'PeftModel.from_pretrained(model, "path' in card
    own = model_card(REPORT, beside, adapter="adapter", by_itself=True)
    assert "`adapter/README.md` says how it is put on it." in own
    assert "peft" not in own
    assert "Only with what it learned" not in model_card(REPORT, whole, adapter="adapter")


def test_a_card_of_an_earlier_stage_tells_of_the_stages_so_far() -> None:
    whole = recipe("org/base")
    longer = replace(whole, stages=(*whole.stages, replace(whole.stages[0], name="later")))
    assert "later" not in model_card(REPORT, longer)


def test_a_bar_in_a_name_does_not_break_the_table() -> None:
    assert "| a\\|b | instruction |" in model_card(REPORT, recipe(None, stage="a|b"))


def test_what_feeds_texts_and_images_is_loaded_as_one() -> None:
    card = model_card(REPORT, recipe("org/base"), head="encoder", of_both=True)
    assert "from transformers import AutoModel, AutoProcessor" in card
    assert "processor = AutoProcessor.from_pretrained" in card
    assert "AutoTokenizer" not in card


def test_of_a_head_of_another_source_it_says_which() -> None:
    card = model_card(REPORT, recipe(None), head="digit_pairs")
    assert "a head of the kind `digit_pairs`" in card
    assert "AutoModel" not in card
