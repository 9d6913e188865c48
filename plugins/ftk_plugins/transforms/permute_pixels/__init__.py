"""The variant `permute_pixels`: images with their pixels in another order, the same for all."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_transforms() -> list[Variant]:
    return [
        Variant(
            name="permute_pixels",
            summary="The pixels of every image in one other order, drawn by a seed: the tasks of permuted MNIST.",
            options="ftk_plugins.transforms.permute_pixels.options:PermutePixelsOptions",
            build="ftk_plugins.transforms.permute_pixels.permute_pixels:PermutePixels",
            paper="Goodfellow, Mirza, Xiao, Courville and Bengio 2014, An Empirical Investigation of Catastrophic "
            "Forgetting in Gradient-Based Neural Networks, https://arxiv.org/abs/1312.6211, section 5.1",
        )
    ]
