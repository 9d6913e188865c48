"""Task arithmetic: the plugin that offers the method of merging ``task_arithmetic``."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_merges() -> list[Variant]:
    return [
        Variant(
            name="task_arithmetic",
            summary="Add task vectors to a base, each times its weight; a negative one takes a task away.",
            options="ftk_plugins.merges.task_arithmetic.options:TaskArithmeticOptions",
            build="ftk_plugins.merges.task_arithmetic.task_arithmetic:TaskArithmetic",
            needs=("weight-scale",),
            provides=("sharding",),
            paper="Ilharco et al. 2022, Editing models with task arithmetic, https://arxiv.org/abs/2212.04089",
        )
    ]
