"""Runs a method once, in a process of its own so that its memory is its own: ``python -m tests.results.one JSON``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from ftk.comparing.joint import joint_recipe
from ftk.comparing.stages import KeptStages
from ftk.errors import FtkError
from ftk.plugin.discovery import load_registry
from ftk.recipe.reading import load_recipe
from ftk.running.pipeline import Run
from ftk.running.runner import run


class FirstStage(KeptStages):
    """Keeps the first stage, which most methods have in common; the later ones would fill the disk."""

    def keep(self, run: Run, number: int) -> None:
        """As the class says."""
        if number <= 1:
            super().keep(run, number)
        else:
            self.close()


def main(asked: dict[str, Any]) -> int:
    """Run a recipe with ``settings`` and a ``seed`` in a ``folder``; ``joint``: of all tasks at once."""
    registry = load_registry()
    try:
        recipe = load_recipe(
            asked["recipe"], overrides=[*asked["settings"], f"seed={asked['seed']}"], registry=registry
        )
        if asked["joint"]:
            recipe = joint_recipe(recipe, registry)
        run(
            recipe, output=Path(asked["folder"]), registry=registry, keeper=FirstStage(keep_last=False),
            choosing=asked["choosing"], page=False,
        )  # fmt: skip
    except FtkError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
