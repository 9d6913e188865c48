"""The model card of a merge: what went in, how, and how it is loaded."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import PurePath

from ftk.merging.checking import MergePlan, described
from ftk.plugin.registry import own_version


def merge_card(plan: MergePlan, errors: Mapping[str, float]) -> str:
    """The README.md of a merged model.

    Args:
        plan: what was merged.
        errors: of an adapter, what its rank leaves out of each weight's change.
    """
    return "\n".join(_lines(plan, errors)) + "\n"


def _lines(plan: MergePlan, errors: Mapping[str, float]) -> Iterator[str]:
    request, variant = plan.request, plan.request.method.variant
    is_adapter = request.options.adapter_rank is not None
    yield from (
        "---",
        f"library_name: {'peft' if is_adapter else 'transformers'}",
        "tags:",
        "- merge",
        "- ftk",
        "---",
        "",
    )
    yield from (f"# {PurePath(request.options.out).name}", "")
    merged = f"merged by ftk {own_version()} with the method `{variant.name}`"
    yield f"{described(plan.reference.config)}, {merged}. {variant.summary}"
    yield ""
    yield "| model | weight |"
    yield "|---|--:|"
    weights = [f"{share:g}" if plan.method.shared else "" for share in request.shares()]
    for folder, weight in zip(plan.folders, weights, strict=True):
        what = " (adapter)" if folder.is_adapter else ""
        yield f"| `{_named(folder.given)}`{what} | {weight} |"
    yield ""
    if plan.base is not None:
        yield f"- Base: `{_named(plan.base.given)}`"
    options = request.method.options.model_dump(mode="json")
    yield from (f"- `{name}` = `{json.dumps(value)}`" for name, value in options.items())
    kept = "the base has it" if plan.base is not None else "the first model has it"
    yield f"- Stored as: {kept if request.options.dtype == 'keep' else request.options.dtype}"
    yield f"- Seed: {request.options.seed}"
    if variant.paper:
        yield f"- Source of the method: {variant.paper}"
    yield ""
    if is_adapter:
        worst = max(errors.values(), default=0.0)
        left_out = f"It leaves out {worst:.2%} of a weight's change at most (Frobenius norm)."
        yield f"An adapter of rank {request.options.adapter_rank}. {left_out}"
        yield ""
        yield from (
            "```python",
            "from peft import PeftModel",
            "",
            'model = PeftModel.from_pretrained(base_model, "path/to/this/folder")',
            "```",
        )
        return
    yield "The folder loads with plain `transformers`, as the base does. Nothing was measured of it: a merge should be."


def _named(given: str) -> str:
    """The end of a path: the rest tells of somebody's disk."""
    return PurePath(given.rstrip("/").replace("\\", "/")).name or given
