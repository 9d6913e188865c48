"""Offers the evaluator `perplexity`."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_evaluators() -> list[Variant]:
    """Perplexity per target token."""
    return [
        Variant(
            name="perplexity",
            summary="Perplexity per target token of the test rows; lower is better.",
            options="ftk_plugins.evaluators.perplexity.options:PerplexityOptions",
            build="ftk_plugins.evaluators.perplexity.perplexity:Perplexity",
            needs=("token-loss",),
            paper="Jelinek, Mercer, Bahl and Baker 1977, Perplexity: a measure of the difficulty of speech"
            " recognition tasks, https://doi.org/10.1121/1.2016299",
        )
    ]
