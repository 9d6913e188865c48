"""``ftk schema``: the JSON schema of recipes with the plugins installed here."""

from __future__ import annotations

import click

from ftk.cli.common import print_json, registry, third_party_option
from ftk.recipe.schema import recipe_schema


@click.command()
@third_party_option
def schema() -> None:
    """Print the JSON schema (draft 2020-12) of recipes with the plugins installed here.

    Editors that know it complete and check recipes while they are written.
    """
    print_json(recipe_schema(registry()))
