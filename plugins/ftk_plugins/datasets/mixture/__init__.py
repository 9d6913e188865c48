"""The variant `mixture`: several data sets in one, each with its share."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_datasets() -> list[Variant]:
    return [
        Variant(
            name="mixture",
            summary="Several data sets in one: by size, weight or share, with a temperature; stops or repeats.",
            options="ftk_plugins.datasets.mixture.options:MixtureOptions",
            build="ftk_plugins.datasets.mixture.mixture:Mixture",
            provides=("validation-data", "test-data"),
            paper="Raffel et al. 2020, Exploring the Limits of Transfer Learning with a Unified Text-to-Text "
            "Transformer, arXiv:1910.10683, section 3.5.2 (mixing by size, with a temperature).",
        )
    ]
