"""Offers the evaluator `samples`."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_evaluators() -> list[Variant]:
    """What the model answers, to be read."""
    return [
        Variant(
            name="samples",
            summary="Answers to some test rows, before and after beside each other: to be read, no number.",
            options="ftk_plugins.evaluators.samples.options:SamplesOptions",
            build="ftk_plugins.evaluators.samples.samples:Samples",
            needs=("prompts",),
        )
    ]
