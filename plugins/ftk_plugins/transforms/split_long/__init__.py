"""The variant `split_long`: long texts cut into windows that overlap."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_transforms() -> list[Variant]:
    return [
        Variant(
            name="split_long",
            summary="Cuts long texts into windows that overlap, a row for each.",
            options="ftk_plugins.transforms.split_long.options:SplitLongOptions",
            build="ftk_plugins.transforms.split_long.split_long:SplitLong",
            paper="Pappagari et al. 2019, Hierarchical Transformers for Long Document Classification, "
            "https://arxiv.org/abs/1910.10781",
        )
    ]
