"""Offers `drawn_shapes`: drawings of shapes with captions, with no download."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_datasets() -> list[Variant]:
    return [
        Variant(
            name="drawn_shapes",
            summary="Built-in drawings with captions: a shape in a place, or two shapes beside each other.",
            options="ftk_plugins.datasets.drawn_shapes.options:DrawnShapesOptions",
            build="ftk_plugins.datasets.drawn_shapes.drawn_shapes:DrawnShapes",
            provides=("validation-data", "test-data"),
        )
    ]
