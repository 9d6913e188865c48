"""The variant `map_columns`: columns renamed, kept, dropped, and filled with a constant."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_transforms() -> list[Variant]:
    return [
        Variant(
            name="map_columns",
            summary="Columns renamed, kept, dropped, or filled with one value.",
            options="ftk_plugins.transforms.map_columns.options:MapColumnsOptions",
            build="ftk_plugins.transforms.map_columns.map_columns:MapColumns",
        )
    ]
