"""The streams of tasks on which the methods are measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Stream:
    """One recipe, without its own mitigations.

    Attributes:
        name: of its runs' folder.
        recipe: the recipe.
        later: the stage or template in which the methods act; empty: they stand at the top of the recipe, whose first
            stage has nothing to keep, or a retained task to.
        settings: ``key=value`` changes for all methods.
        full: those for methods that train all weights.
        metric: by which the tasks are compared.
    """

    name: str
    recipe: Path
    later: str
    settings: Sequence[str]
    full: Sequence[str]
    metric: str


HELD_OUT = (
    '{{ use = "world_facts", relations = "{}", languages = "en", shuffle_seed = 0, limit = 24, templates = "held_out", '
    "templates_per_fact = 1 }}"
)
"""The facts of a relation in words that training never uses: what is chosen by."""

STREAMS = {
    stream.name: stream
    for stream in (
        Stream(
            "facts", ROOT / "recipes" / "facts_stream.toml", "more",
            (
                "model.hidden_size=128",
                *(f"stage.{at}.data.{role}.limit=24" for at in ("capital", "more") for role in ("train", "test")),
                "stage.more.training={ epochs = 20, learning_rate = 3e-3 }",
                f"stage.capital.data.validation={HELD_OUT.format('capital')}",
                f"stage.more.data.validation={HELD_OUT.format('{value}')}",
            ),
            ("stage.more.training={ epochs = 10, learning_rate = 1e-3 }",),
            "keyword_accuracy",
        ),
        Stream(
            "texts", ROOT / "recipes" / "text_stream.toml", "more", ("stage.more.training={ learning_rate = 1e-3 }",),
            ("stage.more.training={ learning_rate = 1e-4 }",), "accuracy",
        ),
    )
}  # fmt: skip
