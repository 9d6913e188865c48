"""The variant `hub`: rows from a data set on the Hugging Face hub."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_datasets() -> list[Variant]:
    return [
        Variant(
            name="hub",
            summary="Rows from a data set on the Hugging Face hub, or from a local copy of one.",
            options="ftk_plugins.datasets.hub.options:HubOptions",
            build="ftk_plugins.datasets.hub.hub:Hub",
            provides=("validation-data", "test-data"),
        )
    ]
