"""The model card (README.md) that an exported model carries, so that its scores travel with it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

from ftk.report.rows import number, percent, score_rows
from ftk.scores import Scores

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def model_card(
    report: Mapping[str, Any],
    recipe_name: str,
    base_model: str | None = None,
    *,
    auto_class: str = "AutoModelForCausalLM",
    adapter: str | None = None,
    mitigations: Mapping[str, Mapping[str, Mapping[str, Any]]] | None = None,
) -> str:
    """Write the README.md of an exported model, with the Hugging Face hub's front matter.

    Args:
        report: the run's ``report.json``.
        recipe_name: the recipe's name, the card's title.
        base_model: where the starting model came from: a hub id, or a folder, of which the last part alone is told;
            None: it was made from nothing.
        auto_class: the ``transformers`` class that loads the model.
        adapter: the folder of the adapter beside the card, if there is one.
        mitigations: the options of each mitigation by its name, by the name of the stage.
    """
    sections = [
        "\n".join(_front_matter(base_model)),
        f"# {recipe_name}",
        _origin(base_model),
        "## Training",
        "\n".join(_stages(report, mitigations or {})),
        "## Scores",
        "\n".join(_scores(report)),
        _LEGEND,
        "## Loading",
        _loading(base_model, auto_class, adapter),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


_LEGEND = (
    "Start is the starting model, learned is right after the task's own stage, end is this model. Retention is the"
    " end as a share of the best score before it; an arrow marks metrics of which less is better."
)


def _front_matter(base_model: str | None) -> Iterator[str]:
    yield "---"
    yield "library_name: transformers"
    if base_model is not None and _HUB_ID.fullmatch(base_model):
        yield f"base_model: {json.dumps(base_model)}"
    yield "tags:"
    yield "- ftk"
    yield "---"


def _origin(base_model: str | None) -> str:
    start = "a model made from nothing" if base_model is None else f"`{_public_name(base_model)}`"
    return f"Trained with ftk, starting from {start}."


def _public_name(base_model: str) -> str:
    """A hub id as it is; of a folder the last part, for the rest tells of somebody's disk."""
    return base_model if _HUB_ID.fullmatch(base_model) else PurePath(base_model.replace("\\", "/")).name


def _stages(
    report: Mapping[str, Any], mitigations: Mapping[str, Mapping[str, Mapping[str, Any]]]
) -> Iterator[str]:
    yield "| stage | objective | adaptation | steps | tokens | trained parameters | mitigations |"
    yield "|---|---|---|--:|--:|--:|---|"
    for stage in report["stages"]:
        options = mitigations.get(stage["name"], {})
        guards = [_mitigation(name, options.get(name, {})) for name in stage.get("mitigations", {})]
        cells = (
            stage["name"],
            stage.get("objective", "–"),
            stage.get("adaptation", "–"),
            f"{stage['steps']:,}",
            f"{stage['tokens']:,}",
            f"{stage['trainable_parameters']:,} of {stage['total_parameters']:,}",
            ", ".join(guards) or "none",
        )
        yield _line(cells)


def _mitigation(name: str, options: Mapping[str, Any]) -> str:
    told = ", ".join(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in options.items())
    return f"{name} ({told})" if told else name


def _scores(report: Mapping[str, Any]) -> Iterator[str]:
    yield "| task | metric | start | learned | end | retention |"
    yield "|---|---|--:|--:|--:|--:|"
    for row in score_rows(Scores.from_json(report)):
        name = f"{row.metric}@{row.probe}" if row.probe else row.metric
        metric = name if row.higher_is_better else f"{name} ↓"
        figures = (number(row.start), number(row.learned), number(row.end), percent(row.retention))
        yield _line((row.task, metric, *figures))


def _loading(base_model: str | None, auto_class: str, adapter: str | None) -> str:
    lines = [
        "The folder loads with plain `transformers`:",
        "",
        "```python",
        f"from transformers import AutoTokenizer, {auto_class}",
        "",
        f'model = {auto_class}.from_pretrained("path/to/this/folder")',
        'tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")',
        "```",
    ]
    if adapter is not None:
        start = "the starting model" if base_model is None else f"`{_public_name(base_model)}`"
        lines += [
            "",
            f"`{adapter}` holds the adapter of the last stage alone, for `peft`; it belongs on the model that the stage"
            f" started from ({start}, where there was but one stage):",
            "",
            "```python",
            "from peft import PeftModel",
            "",
            f'model = PeftModel.from_pretrained(starting_model, "path/to/this/folder/{adapter}")',
            "```",
        ]
    return "\n".join(lines)


def _line(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
