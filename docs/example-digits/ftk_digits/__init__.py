"""Offers the data set `digits`, the model `perceptron` and the objective `pixel_classes` to ftk."""

from ftk import Variant, hookimpl

FTK_HOOK_VERSION = 3


@hookimpl
def ftk_datasets() -> list[Variant]:
    return [
        Variant(
            name="digits",
            summary="Handwritten digits of 8 by 8 pixels, in an order of pixels of their own.",
            options="ftk_digits.options:DigitsOptions",
            build="ftk_digits.digits:Digits",
            provides=("test-data",),
            paper="Alpaydin and Kaynak 1998, Optical Recognition of Handwritten Digits, https://doi.org/10.24432/C50P49",
        )
    ]


@hookimpl
def ftk_models() -> list[Variant]:
    return [
        Variant(
            name="perceptron",
            summary="A multilayer perceptron: a plain torch module.",
            options="ftk_digits.options:PerceptronOptions",
            build="ftk_digits.perceptron:PerceptronSource",
        )
    ]


@hookimpl
def ftk_objectives() -> list[Variant]:
    return [
        Variant(
            name="pixel_classes",
            summary="Which of ten digits the pixels show.",
            options="ftk_digits.options:PixelClassesOptions",
            build="ftk_digits.pixel_classes:PixelClasses",
            provides=("class-predictions", "target-sampling"),
        )
    ]
