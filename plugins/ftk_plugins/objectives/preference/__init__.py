"""The variant `preference`: prefer one answer to another, by DPO or IPO."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_objectives() -> list[Variant]:
    return [
        Variant(
            name="preference",
            summary="Prefer the chosen answer of a row to its rejected one, against the model as the stage began.",
            options="ftk_plugins.objectives.preference.options:PreferenceOptions",
            build="ftk_plugins.objectives.preference.preference:Preference",
            needs=("reference",),
            provides=("next-token", "prompts", "class-predictions", "preferences"),
            paper="Rafailov et al. 2023, Direct Preference Optimization, https://arxiv.org/abs/2305.18290; "
            "Azar et al. 2024, A General Theoretical Paradigm to Understand Learning from Human Preferences, "
            "https://arxiv.org/abs/2310.12036",
        )
    ]
