"""The variant `augment`: changed copies of rows, of texts and of images."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_transforms() -> list[Variant]:
    return [
        Variant(
            name="augment",
            summary="Changed copies beside each row: words deleted, swapped, replaced; images flipped, cropped.",
            options="ftk_plugins.transforms.augment.options:AugmentOptions",
            build="ftk_plugins.transforms.augment.augment:Augment",
            paper="Wei and Zou 2019, EDA: Easy Data Augmentation Techniques for Boosting Performance on Text "
            "Classification Tasks, https://arxiv.org/abs/1901.11196",
        )
    ]
