"""The model card (README.md) that an exported model carries, so that its scores travel with it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ftk.recipe.checking import MERGE
from ftk.report.rows import number, percent, score_rows
from ftk.report.scores import Scores

if TYPE_CHECKING:
    from ftk.recipe.specs import PartSpec, Recipe, StageSpec

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")

_LOADERS = {
    "causal_lm": ("AutoModelForCausalLM", "AutoTokenizer"),
    "masked_lm": ("AutoModelForMaskedLM", "AutoTokenizer"),
    "seq2seq_lm": ("AutoModelForSeq2SeqLM", "AutoTokenizer"),
    "sequence_classification": ("AutoModelForSequenceClassification", "AutoTokenizer"),
    "token_classification": ("AutoModelForTokenClassification", "AutoTokenizer"),
    "encoder": ("AutoModel", "AutoTokenizer"),
    "image_classification": ("AutoModelForImageClassification", "AutoImageProcessor"),
}
"""Which ``transformers`` classes load the model and what feeds it, by the kind of its head."""

_LEGEND = (
    "Start is the starting model, learned is right after the task's own stage, end is this model. Retention"
    " is the end as a share of the best score before it; an arrow marks metrics of which less is better."
)


def model_card(
    report: Mapping[str, Any],
    recipe: Recipe,
    *,
    head: str = "causal_lm",
    adapter: str | None = None,
    by_itself: bool = False,
    told: str | None = None,
    how_to_load: str | None = None,
    of_both: bool = False,
) -> str:
    """Write the README.md of an exported model, with the Hugging Face hub's front matter.

    Args:
        report: the run's ``report.json``, up to the stage that the model comes from.
        recipe: what was run.
        head: the kind of the model's head, see :class:`ftk.parts.Head`.
        adapter: the folder of the adapter beside the card, if there is one.
        by_itself: whether that folder says itself how it is loaded, and not with ``peft``.
        told: what the adaptation says of what it could not write.
        how_to_load: what the model source says of loading the folder; None: transformers does.
        of_both: whether what feeds the model reads texts and images.
    """
    start = getattr(recipe.model.options, "path", None)
    stages = recipe.stages[: len(report["stages"])]
    sections = [
        "\n".join(_front_matter(start, how_to_load is None)),
        f"# {recipe.name}",
        f"Trained with ftk {report['ftk']}, starting from {_told(start, recipe)}.",
        "## Training",
        "\n".join(_stages(report, stages)),
        *_kept(report),
        "\n".join(line for stage in stages for line in _settings(stage)),
        "## Scores",
        "\n".join(_scores(report)),
        _LEGEND,
        "## Loading",
        "\n".join(_loading(head, of_both)) if how_to_load is None else how_to_load,
    ]
    if adapter is not None:
        sections.append("\n".join(_adapter_loading(adapter, stages, _told(start, recipe), by_itself)))
    if told is not None:
        sections.append(told)
    return "\n\n".join(sections) + "\n"


def _front_matter(start: str | None, by_transformers: bool) -> Iterator[str]:
    yield "---"
    if by_transformers:
        yield "library_name: transformers"
    if start is not None and _on_hub(start):
        yield f"base_model: {json.dumps(start)}"
    yield "tags:"
    yield "- ftk"
    yield "---"


def _on_hub(start: str) -> bool:
    """Whether it is a hub id: a folder of that name would have been loaded in its place."""
    return _HUB_ID.fullmatch(start) is not None and not Path(start).exists()


def _told(start: str | None, recipe: Recipe) -> str:
    """The starting model; of a folder the last part alone, for the rest tells of somebody's disk."""
    if start is None:
        return f"a model of the source `{recipe.model.variant.name}`"
    return f"`{start if _on_hub(start) else PurePosixPath(start.replace(chr(92), '/')).name}`"


def _stages(report: Mapping[str, Any], stages: tuple[StageSpec, ...]) -> Iterator[str]:
    yield "| stage | objective | adaptation | mitigations | steps | tokens | trained parameters |"
    yield "|---|---|---|---|--:|--:|--:|"
    for spec, facts in zip(stages, report["stages"], strict=True):
        yield _line(
            spec.name,
            spec.objective.name,
            spec.adaptation.name,
            ", ".join(part.name for part in spec.mitigations) or "none",
            f"{facts['steps']:,}",
            f"{facts['tokens']:,}",
            f"{facts['trainable_parameters']:,} of {facts['total_parameters']:,}",
        )


def _kept(report: Mapping[str, Any]) -> Iterator[str]:
    """Which stages left other weights than those of their last step."""
    for facts in report["stages"]:
        if facts["kept_step"] != facts["steps"]:
            yield f"`{facts['name']}` left the weights of its best evaluation, at step {facts['kept_step']:,}."


def _settings(stage: StageSpec) -> Iterator[str]:
    yield f"- Settings of `{stage.name}`:"
    for part in (stage.objective, stage.adaptation, *stage.mitigations):
        yield f"  - {_part(part)}"
    yield f"  - training: {_options(stage.training.model_dump(mode='json', exclude_none=True))}"


def _part(part: PartSpec) -> str:
    name = f"`{part.name}`" if part.name == part.variant.name else f"`{part.name}` (`{part.variant.name}`)"
    return f"{name}: {_options(part.options.model_dump(mode='json', exclude_none=True))}"


def _options(options: Mapping[str, Any]) -> str:
    told = (f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in options.items())
    return f"`{', '.join(told)}`" if options else "no options"


def _scores(report: Mapping[str, Any]) -> Iterator[str]:
    yield "| task | metric | start | learned | end | retention |"
    yield "|---|---|--:|--:|--:|--:|"
    for row in score_rows(Scores.from_json(report)):
        metric = f"{row.metric}@{row.probe}" if row.probe else row.metric
        yield _line(
            row.task,
            metric if row.higher_is_better else f"{metric} ↓",
            number(row.start),
            number(row.learned),
            number(row.end),
            percent(row.retention),
        )


def _loading(head: str, of_both: bool) -> Iterator[str]:
    if head not in _LOADERS:
        yield f"The model has a head of the kind `{head}`, which the model source of its recipe loads."
        return
    model, processor = _LOADERS[head]
    processor = "AutoProcessor" if of_both else processor
    name = "tokenizer" if processor == "AutoTokenizer" else "processor"
    yield "The folder loads with plain `transformers`:"
    yield ""
    yield "```python"
    yield f"from transformers import {', '.join(sorted((model, processor)))}"
    yield ""
    yield f'model = {model}.from_pretrained("path/to/this/folder")'
    yield f'{name} = {processor}.from_pretrained("path/to/this/folder")'
    yield "```"


def _adapter_loading(adapter: str, stages: Sequence[StageSpec], start: str, by_itself: bool) -> Iterator[str]:
    merged = MERGE in stages[-1].adaptation.provides()
    base = start if len(stages) == 1 else "the model that the stage before left"
    if not merged:
        yield "That is the model which the last stage started from. Only with what it learned has it the scores above."
        base = "it"
    if by_itself:
        yield f"`{adapter}` holds what the last stage learned; `{adapter}/README.md` says how it is put on {base}."
        return
    yield f"`{adapter}` holds what the last stage learned as an adapter for `peft`; it belongs on {base}:"
    yield ""
    yield "```python"
    yield "from peft import PeftModel"
    yield ""
    on = "starting_model" if merged else "model"
    yield f'model = PeftModel.from_pretrained({on}, "path/to/this/folder/{adapter}")'
    yield "```"


def _line(*cells: str) -> str:
    escaped = (cell.replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(escaped)} |"
