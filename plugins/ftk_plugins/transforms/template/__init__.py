"""The variant `template`: a column written from others by a template."""

from ftk import Variant, hookimpl


@hookimpl
def ftk_transforms() -> list[Variant]:
    return [
        Variant(
            name="template",
            summary="A column written from the others by a Jinja template, which runs in a sandbox.",
            options="ftk_plugins.transforms.template.options:TemplateOptions",
            build="ftk_plugins.transforms.template.template:Template",
            paper="Jinja, https://jinja.palletsprojects.com/en/stable/sandbox/",
        )
    ]
