"""Offers the evaluator `lm_eval`."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_evaluators() -> list[Variant]:
    """The scores of tasks of lm-evaluation-harness."""
    return [
        Variant(
            name="lm_eval",
            summary="Any tasks of EleutherAI's lm-evaluation-harness, with the model as it stands.",
            options="ftk_plugins.evaluators.lm_eval.options:LmEvalOptions",
            build="ftk_plugins.evaluators.lm_eval.lm_eval:LmEval",
            needs=("next-token",),
            provides=("own-rows", "while-training"),
            paper="Gao et al. 2021, lm-evaluation-harness, https://doi.org/10.5281/zenodo.5371628",
        )
    ]
