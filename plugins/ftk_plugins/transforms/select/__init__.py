"""The variant `select`: rows of some classes, topics, languages."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_transforms() -> list[Variant]:
    return [
        Variant(
            name="select",
            summary="Keeps the rows whose column has one of some values.",
            options="ftk_plugins.transforms.select.options:SelectOptions",
            build="ftk_plugins.transforms.select.select:Select",
        )
    ]
