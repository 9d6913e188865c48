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


def placed(*lines: str) -> str:
    """A recipe with layers in main memory; with more lines in ``[training]``."""
    return training('device_map = { "model.layers.0" = "cpu" }', *lines)


BAD_DIVIDED = {
    "placed and divided": Bad(
        divided('device_map = "auto"'),
        ("training.device_map|training.sharding divides each among several|leave one of the two out",),
    ),
    "placed and compiled": Bad(placed("compile = true"), ("training.compile|cannot follow weights that come",)),
    "placed, with a loss in chunks": Bad(
        placed("loss_chunks = 2"),
        ("training.loss_chunks|training.device_map may leave it elsewhere", "training.loss_chunks|needs loss-chunks"),
    ),
    "placed, in fp16": Bad(placed('precision = "fp16"'), ("training.precision|has not been tried on several|bf16",)),
    "placed somewhere else": Bad(
        training('device_map = { lm_head = "gpu" }'),
        ("training.device_map.lm_head|must be a whole number or 'cpu' or 'disk', got 'gpu'",),
    ),
    "placed evenly": Bad(
        training('device_map = "balanced"'), ("training.device_map|must be 'none', 'auto' or 'sequential' or a table",)
    ),
    "a limit to nothing": Bad(
        training('max_memory = { 0 = "20GB" }'), ('training|`max_memory` goes with `device_map = "auto"`',)
    ),
    "a limit of no size": Bad(
        training('device_map = "auto"', 'max_memory = { 0 = "much" }'), ('training.max_memory|{ 0 = "20GB", cpu =',)
    ),
    "a limit of no place": Bad(
        training('device_map = "auto"', 'max_memory = { gpu = "20GB" }'),
        ("training.max_memory|its keys are the numbers of accelerators",),
    ),
    "placed otherwise in the second stage": Bad(
        pipeline(("training = { steps = 7 }", "training = { steps = 7, device_map = { a = 1 } }")),
        ('training.device_map|is "none" and { a = 1 } in different stages|at the top',),
    ),
    "tensor parallelism": Bad(
        training("tensor_parallel = 2"), ('training.tensor_parallel|unknown key|there is none: sharding = "full"',)
    ),
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
