"""Recipes that ask of a divided model what cannot be done with it."""

from __future__ import annotations

from tests.core.bad_recipes import Bad, pipeline
from tests.core.bad_training import training

ALL_WHOLE = (
    ('[[mitigation]]\nuse = "anchor"\n', ""),
    ('adaptation = { use = "adapter", rank = 2 }', 'adaptation = { use = "whole" }'),
)


def divided(*lines: str) -> str:
    """The recipe of two stages, both on a divided model, with parts that can; with more lines in ``[training]``."""
    return pipeline(("epochs = 2", "\n".join(("epochs = 2", 'sharding = "full"', *lines))), *ALL_WHOLE)


BAD_DIVIDED = {
    "divided, with parts that need whole weights": Bad(
        training('sharding = "full"'),
        (
            "adaptation|`adapter` is not made for weights that are divided|adaptations that are: |, whole",
            "mitigation.anchor|`anchor` is not made for weights that are divided",
            "mitigation.mix|`mix` is not made for weights that are divided",
        ),
    ),
    "divided, with an optimizer of whole matrices": Bad(
        divided('optimizer = "muon"'), ('training.optimizer|muon makes whole matrices orthogonal|"adamw" or "sgd"',)
    ),
    "divided, with steps that some would skip": Bad(divided('precision = "fp16"'), ("training.precision|bf16",)),
    "divided and compiled": Bad(divided("compile = true"), ("training.compile|has not been tried",)),
    "divided, with a loss in chunks": Bad(
        divided("loss_chunks = 2"),
        (
            "training.loss_chunks|training.sharding divides it|micro_batch_size",
            "training.loss_chunks|needs loss-chunks|stage first",
            "training.loss_chunks|needs loss-chunks|stage second",
        ),
    ),
    "divided in one stage only": Bad(
        pipeline(("training = { steps = 7 }", 'training = { steps = 7, sharding = "full" }'), *ALL_WHOLE),
        ('training.sharding|is "none" and "full" in different stages|at the top',),
    ),
}
