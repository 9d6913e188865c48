"""The variant `filter`: rows whose texts are of the length, the script and the quality asked for."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_transforms() -> list[Variant]:
    return [
        Variant(
            name="filter",
            summary="Keeps rows by length, script, repetition and symbols, or by the rules of Gopher and C4.",
            options="ftk_plugins.transforms.filter.options:FilterOptions",
            build="ftk_plugins.transforms.filter.filter:Filter",
            paper="Rae et al. 2021, Scaling Language Models: Methods, Analysis & Insights from Training Gopher, "
            "https://arxiv.org/abs/2112.11446; Raffel et al. 2020, https://arxiv.org/abs/1910.10683",
        )
    ]
