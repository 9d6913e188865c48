"""The variant `distillation`: a student learns what a teacher predicts, beside what is right."""

from ftk import Variant, hookimpl

PROVIDES = (
    "next-token", "token-loss", "prompts", "class-predictions", "target-sampling", "target-listing", "target-logits",
    "loss-chunks", "label-smoothing",
)  # fmt: skip
"""What the objectives give that it can stand around; of one of them, what that gives."""


@hookimpl
def ftk_objectives() -> list[Variant]:
    return [
        Variant(
            name="distillation",
            summary="Learn what another model predicts, the teacher, beside what the rows of another objective say.",
            options="ftk_plugins.objectives.distillation.options:DistillationOptions",
            build="ftk_plugins.objectives.distillation.distillation:distilled",
            provides=PROVIDES,
            paper="Hinton, Vinyals and Dean 2015, Distilling the Knowledge in a Neural Network, "
            "https://arxiv.org/abs/1503.02531; reverse and Jensen-Shannon: Agarwal et al. 2024, "
            "https://arxiv.org/abs/2306.13649",
        )
    ]
