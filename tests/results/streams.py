"""The streams of tasks on which the methods are measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.results.methods import CLASSICAL, METHODS, Method

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
        methods: what is measured on it, in the order of its table.
        page: where in ``docs`` the table stands.
        published: another's scores by method, which its table has in the place of costs; None: it has costs.
    """

    name: str
    recipe: Path
    later: str
    settings: Sequence[str]
    full: Sequence[str]
    metric: str
    methods: Sequence[Method] = METHODS
    page: str = "results.md"
    published: Mapping[str, float] | None = None


HELD_OUT = (
    '{{ use = "world_facts", relations = "{}", languages = "en", shuffle_seed = 0, limit = 24, templates = "held_out", '
    "templates_per_fact = 1 }}"
)
"""The facts of a relation in words that training never uses: what is chosen by."""


def classical(name: str, recipe: str, settings: Sequence[str] = (), validation: float = 0.1, **scores: float) -> Stream:
    """One of images, a tenth of whose training rows is kept back to choose by; ``scores`` are the published ones."""
    held_back = f"data.train.validation_fraction={validation}"
    path = ROOT / "recipes" / f"{recipe}.toml"
    return Stream(name, path, "", (held_back, *settings), (), "accuracy", CLASSICAL, "reference.md", scores)


DIGITS = (
    *(f"data.{role}.path='{ROOT}/recipes/data/digits-{role}.parquet'" for role in ("train", "test")),
    "model={ use = 'mlp', image_size = 8, hidden_size = 100 }",
    "training={ steps = 60, batch_size = 64, learning_rate = 3e-3 }",
)
"""Scikit-learn's, in the place of MNIST's."""

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
        classical("split_digits", "split_mnist", DIGITS, validation=0.2),
        classical("split_mnist", "split_mnist", none=0.87, ewc=0.986, si=0.99),
        classical("split_mnist_classes", "split_mnist_classes", ewc=0.20),
        classical(
            "permuted_mnist", "permuted_mnist", ("model.hidden_size=400", "training.learning_rate=1e-3"),
            none=0.78, ewc=0.94, si=0.95,
        ),
    )
}  # fmt: skip
