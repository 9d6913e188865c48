"""The variant `clean`: texts in one Unicode form, without control characters, stray white space and HTML."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_transforms() -> list[Variant]:
    return [
        Variant(
            name="clean",
            summary="Texts in one Unicode form, without control characters, stray white space and, if asked, HTML.",
            options="ftk_plugins.transforms.clean.options:CleanOptions",
            build="ftk_plugins.transforms.clean.clean:Clean",
            paper="Unicode Standard Annex #15, Unicode Normalization Forms, https://www.unicode.org/reports/tr15/",
        )
    ]
