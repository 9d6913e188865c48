"""Offers the evaluator `recall_at_k`."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_evaluators() -> list[Variant]:
    """How near the top the right counterpart of a row is found."""
    return [
        Variant(
            name="recall_at_k",
            summary="Retrieval among all test rows: the share found among the first k, and the mean reciprocal rank.",
            options="ftk_plugins.evaluators.recall_at_k.options:RecallAtKOptions",
            build="ftk_plugins.evaluators.recall_at_k.recall_at_k:RecallAtK",
            needs=("embedding-predictions",),
        )
    ]
