"""Offers the evaluator `probe`."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_evaluators() -> list[Variant]:
    """How much of a task the body holds, whatever its head says."""
    return [
        Variant(
            name="probe",
            summary="What a linear classifier on the body's frozen features gets right: what the body still holds.",
            options="ftk_plugins.evaluators.probe.options:ProbeOptions",
            build="ftk_plugins.evaluators.probe.probe:Probe",
            needs=("class-predictions",),
            paper="Davari, Asadi, Mudur, Aljundi and Belilovsky 2022, Probing Representation Forgetting in Supervised"
            " and Unsupervised Continual Learning, https://arxiv.org/abs/2203.13381",
        )
    ]
