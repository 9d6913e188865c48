"""Offers `world_facts`: questions and answers about countries and chemical elements, with no download."""

from __future__ import annotations

from ftk import Variant, hookimpl


@hookimpl
def ftk_datasets() -> list[Variant]:
    """The built-in question-and-answer rows."""
    return [
        Variant(
            name="world_facts",
            summary="Built-in questions and answers: 193 countries and 118 elements, in English and Chinese.",
            options="ftk_plugins.datasets.world_facts.options:WorldFactsOptions",
            build="ftk_plugins.datasets.world_facts.world_facts:WorldFacts",
            paper="ISO 3166-1 (countries), ISO 4217 (currencies), IUPAC (elements), Unicode CLDR (names).",
        )
    ]
