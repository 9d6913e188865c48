"""The options of the transform `template`."""

from __future__ import annotations

from pydantic import Field, field_validator

from ftk import Options


class TemplateOptions(Options):
    """What a recipe may say about `template`."""

    template: str = Field(
        min_length=1,
        description="A Jinja template in which the row's columns stand by name.",
        examples=["{{ question }}\n{{ answer }}"],
    )
    column: str = Field(
        default="text", min_length=1, description="The column that is written; one of that name is replaced."
    )

    @field_validator("template")
    @classmethod
    def _syntax(cls, template: str) -> str:
        from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        try:
            ImmutableSandboxedEnvironment(undefined=StrictUndefined).from_string(template)
        except TemplateSyntaxError as error:
            raise ValueError(f"is no Jinja template, line {error.lineno}: {error.message}") from None
        except TemplateError as error:
            raise ValueError(f"cannot be a template: {error}") from None
        return template
