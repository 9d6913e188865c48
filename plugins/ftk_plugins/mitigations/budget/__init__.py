"""Offers `budget`: a floor for what is retained, held by turning the strengths of the mitigations beside it."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_mitigations() -> list[Variant]:
    return [
        Variant(
            name="budget",
            summary="Holds a retention floor: turns the strengths of other mitigations, and steps back just enough.",
            options="ftk_plugins.mitigations.budget.options:BudgetOptions",
            build="ftk_plugins.mitigations.budget.budget:Budget",
            needs=(
                "earlier-data", "strength-knob", "reference", "weight-scale", "validation-data",
                "retain-validation-data",
            ),
            provides=("sharding",),
            paper="ftk; the way back at the end is that of Wortsman et al. 2022, Robust fine-tuning of zero-shot "
            "models, https://arxiv.org/abs/2109.01903",
        )
    ]  # fmt: skip
