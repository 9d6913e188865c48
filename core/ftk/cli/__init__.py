"""The command ``ftk``: each verb is imported when it is asked for, and errors are told as text."""

from __future__ import annotations

import errno
import logging
import os
import re
import tempfile
import traceback
from typing import Any

import click

from ftk.cli.once import is_first, tell_once
from ftk.cli.settings import Settings
from ftk.errors import FtkError, Interrupted, did_you_mean, visible
from ftk.plugin.registry import one_line, own_version
from ftk.plugin.variant import import_reference

VERBS = {
    "run": ("ftk.cli.run:run", "Run a recipe, or go on with a run that was interrupted."),
    "ablate": ("ftk.cli.ablate:ablate", "Say what each mitigation of a recipe is worth."),
    "compare": ("ftk.cli.compare:compare", "Show finished runs side by side, with intervals."),
    "report": ("ftk.cli.report:report", "Write the page of a run, with its charts."),
    "data": ("ftk.cli.data:data", "Say what a run would see of its data."),
    "plan": ("ftk.cli.plan:plan", "Say what a recipe will take, and whether it fits."),
    "merge": ("ftk.cli.merge:merge", "Merge models or adapters on disk into one."),
    "sweep": ("ftk.cli.sweep:sweep", "Run a recipe at many settings, and compare them."),
    "check": ("ftk.cli.check:check", "Check a recipe and show what it will do."),
    "list-plugins": ("ftk.cli.list_plugins:list_plugins", "List what a recipe can name here."),
    "show": ("ftk.cli.show:show", "Show one variant: its options, its source, an example."),
    "schema": ("ftk.cli.schema:schema", "Print the JSON schema of recipes, for editors."),
    "doctor": ("ftk.cli.doctor:doctor", "Check versions, devices and plugins of this installation."),
}
"""Where each verb is, and what ``ftk --help`` says of it without importing it."""


class Verbs(click.Group):
    """A group that imports its commands on demand and turns exceptions into messages and exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs, in the order in which ``--help`` shows them."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one verb."""
        if cmd_name not in VERBS:
            return None
        command: click.Command = import_reference(VERBS[cmd_name][0])
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Find the verb that the arguments name, or say which one is near."""
        if args[0] not in VERBS and not args[0].startswith("-"):
            ctx.fail(f"there is no command `{args[0]}`; {did_you_mean(args[0], VERBS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of verbs for ``--help``."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in VERBS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb; what it raises becomes a message on stderr and an exit code."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(130)
        except Interrupted as stop:  # asked for, and so no error
            told = visible(str(stop))
            tell_once(str(stop), lambda: click.echo(told, err=True), stop)
            ctx.exit(stop.exit_code)
        except FtkError as error:
            if _wants_traceback(ctx):
                click.echo(visible(traceback.format_exc()), err=True)
            text = str(error)
            tell_once(text, lambda: tell_error(text), error)
            ctx.exit(error.exit_code)
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise
            if (refused := refused_by_the_system(error)) and not _wants_traceback(ctx):
                tell_once(refused, lambda: tell_error(refused), error)
                ctx.exit(1)
            unexpected = _unexpected(error, _wants_traceback(ctx))
            tell_once(one_line(error), lambda: tell_error(unexpected), error)
            ctx.exit(1)


@click.group(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 the run failed, 2 the input is wrong, 130 interrupted.",
)
@click.version_option(own_version(), prog_name="ftk", message="%(prog)s %(version)s")
@click.option("--third-party/--no-third-party", default=True, help="Whether to load plugins that do not come with ftk.")
@click.option(
    "--traceback",
    "with_traceback",
    is_flag=True,
    help="Show where an error arose (or set FTK_TRACEBACK=1).",
)
@click.pass_context
def cli(ctx: click.Context, third_party: bool, with_traceback: bool) -> None:
    """Fine-tune transformers without forgetting.

    A recipe (one TOML file) names a model, data, an objective, an adaptation, mitigations and evaluators;
    every name in it is a plugin's.
    """
    if logging.lastResort is not None:  # it writes what parts warn of
        logging.lastResort.setFormatter(VisibleFormatter())
        logging.lastResort.setLevel(logging.WARNING if is_first() else logging.CRITICAL)
    ctx.obj = Settings(third_party=third_party, traceback=with_traceback)


class VisibleFormatter(logging.Formatter):
    """Writes a message alone, with what a terminal would obey shown."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


def main() -> None:
    """The console script ``ftk``."""
    cli(prog_name="ftk")


def tell_error(text: str) -> None:
    """Write ``error: ...`` to stderr, in colour on a terminal."""
    click.echo(f"{click.style('error:', fg='red', bold=True)} {visible(text)}", err=True, color=_color())


REFUSALS = {
    errno.ENOSPC: "make room there, or choose another place with --output; the same command goes on with the run",
    errno.EDQUOT: "make room there, or choose another place with --output; the same command goes on with the run",
    errno.EROFS: "choose a place that can be written to",
    errno.EACCES: "choose a place that you may write to, or ask for the right to",
    errno.EPERM: "choose a place that you may write to, or ask for the right to",
    errno.ENOTDIR: "a file stands where a folder is needed; choose another place",
    errno.EISDIR: "a folder stands where a file is needed; move it away",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "a link there leads to itself; mend it",
    errno.EIO: "the disk or the network behind it failed; look at it before you go on",
}
"""What the operating system refuses that is nobody's mistake in the code, with the mend."""


def refused_by_the_system(error: Exception) -> str:
    """What to say of an error of the operating system, also where a library has wrapped it; nothing of another."""
    number, place = getattr(error, "errno", None), getattr(error, "filename", None)
    wrapped = re.search(r"\(os error (\d+)\)", str(error))
    if wrapped and not isinstance(error, OSError):
        number = int(wrapped[1])
    if number not in REFUSALS:
        return ""
    return f"{f'{place}: ' if place else ''}{os.strerror(number)}\n  {REFUSALS[number]}"


def _color() -> bool | None:
    return False if os.environ.get("NO_COLOR") else None


def _wants_traceback(ctx: click.Context) -> bool:
    asked = isinstance(ctx.obj, Settings) and ctx.obj.traceback
    return asked or os.environ.get("FTK_TRACEBACK", "") not in ("", "0")


def _unexpected(error: Exception, with_traceback: bool) -> str:
    """What to say of an exception that nobody foresaw; its traceback goes to stderr or into a file."""
    said = f"{one_line(error)}\n  this is a mistake of ftk or of a plugin, not yours"
    if with_traceback:
        click.echo(visible(traceback.format_exc()), err=True)
        return said
    with tempfile.NamedTemporaryFile(
        "w", prefix="ftk-traceback-", suffix=".txt", delete=False, encoding="utf-8"
    ) as file:
        file.write(traceback.format_exc())
    return f"{said}; the full traceback is in {file.name}"
