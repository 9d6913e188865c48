"""The variant `files`: rows from local files."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_datasets() -> list[Variant]:
    return [
        Variant(
            name="files",
            summary="Rows from local files: JSON Lines, JSON, CSV, Parquet or plain text.",
            options="ftk_plugins.datasets.files.options:FilesOptions",
            build="ftk_plugins.datasets.files.files:Files",
            provides=("validation-data", "test-data"),
        )
    ]
