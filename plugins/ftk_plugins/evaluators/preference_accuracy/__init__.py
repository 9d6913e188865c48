"""Offers the evaluator `preference_accuracy`."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_evaluators() -> list[Variant]:
    """How often, and by how much, the chosen answer is the likelier one."""
    return [
        Variant(
            name="preference_accuracy",
            summary="Share of test rows whose chosen answer is likelier than the rejected one, and by how much.",
            options="ftk_plugins.evaluators.preference_accuracy.options:PreferenceAccuracyOptions",
            build="ftk_plugins.evaluators.preference_accuracy.preference_accuracy:PreferenceAccuracy",
            needs=("preferences",),
            paper="Rafailov et al. 2023, Direct Preference Optimization, https://arxiv.org/abs/2305.18290",
        )
    ]
