"""The variant `deduplicate`: rows that say the same, or nearly the same, stay once."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_transforms() -> list[Variant]:
    return [
        Variant(
            name="deduplicate",
            summary="Keeps the first of rows that say the same, or nearly the same by MinHash.",
            options="ftk_plugins.transforms.deduplicate.options:DeduplicateOptions",
            build="ftk_plugins.transforms.deduplicate.deduplicate:Deduplicate",
            paper="Lee et al. 2022, Deduplicating Training Data Makes Language Models Better, "
            "https://arxiv.org/abs/2107.06499",
        )
    ]
