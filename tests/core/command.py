"""The command as tests call it."""

from __future__ import annotations

from typing import Any

from click.testing import CliRunner, Result

from ftk.cli import cli


def ftk_(*arguments: str, **kwargs: Any) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(cli, arguments, prog_name="ftk", **kwargs)
