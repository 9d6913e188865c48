"""What a verb of the command raises, and what a user sees of it."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from ftk import cli as command
from ftk.cli import cli
from ftk.errors import Interrupted, RunFailed


def ftk_(*arguments: str, **kwargs: Any) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(cli, arguments, prog_name="ftk", **kwargs)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``failing(error)`` makes the verb ``check`` raise it."""

    def prepare(error: BaseException) -> None:
        @click.command()
        def fail() -> None:
            raise error

        monkeypatch.setattr(command, "import_reference", lambda reference: fail)

    return prepare


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (RunFailed("the loss is nan"), 1, "error: the loss is nan\n"),
        (Interrupted("saved; go on with: ftk run x"), 130, "saved; go on with: ftk run x\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_foreseen_errors_are_text(error: BaseException, code: int, text: str, failing: Any) -> None:
    failing(error)
    result = ftk_("check")
    assert (result.exit_code, result.stderr, result.stdout) == (code, text, "")


def test_an_unforeseen_error_is_one_line_and_a_file(failing: Any) -> None:
    failing(ValueError("what\never"))
    result = ftk_("check")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ValueError: what ever (core/test_cli_errors.py, line ")
    assert "Traceback" not in result.stderr
    log = Path(result.stderr.strip().rpartition(" ")[2])
    assert "Traceback (most recent call last)" in log.read_text()
    log.unlink()


@pytest.mark.parametrize("asked", ["option", "variable"])
def test_a_traceback_is_shown_on_request(asked: str, failing: Any) -> None:
    failing(ValueError("what"))
    result = ftk_("--traceback", "check") if asked == "option" else ftk_("check", env={"FTK_TRACEBACK": "1"})
    assert result.exit_code == 1
    assert "Traceback (most recent call last)" in result.stderr


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "runs/a/x"),
            "runs/a/x: No space left on device\n  make room",
        ),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "No space left on device\n  make room"),
        (PermissionError(errno.EACCES, "Permission denied", "runs"), "runs: Permission denied\n  choose a place"),
    ],
)
def test_what_the_system_refuses_is_nobodys_mistake(error: Exception, said: str, failing: Any) -> None:
    failing(error)
    result = ftk_("check")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {said}")
    assert "mistake of ftk" not in result.stderr


@pytest.mark.parametrize(
    "asked",
    [
        ("run", "recipe.toml", "--output", ""),
        ("ablate", "recipe.toml", "--output", " "),
        ("sweep", "recipe.toml", "--over", "seed=[1]", "--output="),
        ("compare", "runs/one", ""),
        ("report", ""),
        ("check", ""),
    ],
    ids=lambda asked: asked[0],
)
def test_an_empty_path_is_not_the_folder_where_one_stands(asked: tuple[str, ...]) -> None:
    result = ftk_(*asked)
    assert result.exit_code == 2
    assert "the path is empty" in result.stderr
