"""Runs ``recipes/adapters.toml`` with every adaptation and writes what each learned and kept into ``docs/adapters.md``.

``python -m tests.adapters FOLDER`` keeps the runs in FOLDER; those that are finished there are not run again.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ftk

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "recipes" / "adapters.toml"
PAGE = ROOT / "docs" / "adapters.md"

CHOICES: Mapping[str, tuple[str, float]] = {
    "full": ("", 1e-3),
    "head": ("", 1e-2),
    "partial": ("blocks = 1", 1e-3),
    "layerwise_lr": ("decay = 0.6", 1e-3),
    "progressive": ("thawed_by = 0.3, decay = 0.6", 1e-3),
    "lora": ("rank = 8", 3e-3),
    "adalora": ("rank = 8", 2e-2),
    "dora": ("rank = 8", 3e-3),
    "ia3": ('targets = "all-linear"', 3e-2),
    "peft": ('method = "oft", config = { oft_block_size = 8 }', 2e-2),
    "bottleneck": ("size = 16", 1e-2),
    "prompt": ("tokens = 8", 3e-2),
    "prefix": ("tokens = 8", 3e-2),
}
"""The options of each, as a recipe writes them, and its learning rate."""

HEADER = "| adaptation | options | learning rate | learned | kept | trained parameters | seconds |"
BEGIN, END = "<!-- the table begins -->\n", "<!-- the table ends -->"


def overrides(use: str) -> list[str]:
    """What a recipe says for this adaptation, as after ``--set``."""
    options, rate = CHOICES[use]
    table = f'{{ use = "{use}"{", " if options else ""}{options} }}'
    return [f"adaptation={table}", f"training.learning_rate={rate}"]


def row(use: str, report: Mapping[str, Any]) -> str:
    """A line of the table: shares of facts answered after the last stage, and that stage's size and time."""
    options, rate = CHOICES[use]
    kept, learned = report["matrix"]["keyword_accuracy"][-1]
    stage = report["stages"][-1]
    cells = (
        f"[`{use}`](variants/adaptations/{use}.md)", f"`{options}`" if options else "", f"{rate:g}", f"{learned:.2f}",
        f"{kept:.2f}", f"{stage['trainable_parameters']:,}", f"{stage['seconds']:.0f}",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def run(use: str, folder: Path, *more: str) -> str:
    """Run the recipe with this adaptation in a folder of its own and give its line."""
    return row(use, ftk.run(RECIPE, output=folder / use, overrides=[*overrides(use), *more]).report)


def main(arguments: Sequence[str]) -> int:
    """Run all of them, print the table and write it into the page."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: python -m tests.adapters FOLDER", file=sys.stderr)
        return 2
    lines = [HEADER, f"|{'---|' * HEADER.count(' | ')}---|"]
    print("\n".join(lines), flush=True)
    for use in CHOICES:
        lines.append(run(use, Path(arguments[0])))
        print(lines[-1], flush=True)
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(before + BEGIN + "\n".join(lines) + "\n" + END + after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
