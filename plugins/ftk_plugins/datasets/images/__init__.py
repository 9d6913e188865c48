"""The variant `images`: pictures from a folder, with their classes or captions."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_datasets() -> list[Variant]:
    return [
        Variant(
            name="images",
            summary="Images from a folder: a folder for each class, or a file that gives each image its caption.",
            options="ftk_plugins.datasets.images.options:ImagesOptions",
            build="ftk_plugins.datasets.images.images:Images",
            provides=("validation-data", "test-data"),
        )
    ]
