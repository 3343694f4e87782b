"""The `detr-spec` command. It has no subcommands of its own: each room registers what it brings in the
entry-point group `detr_spec.commands`, and a subcommand is imported only when it is asked for."""

from __future__ import annotations

import importlib.util
import sys
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import click

COMMANDS = "detr_spec.commands"
DISTRIBUTIONS = {"PIL": "pillow", "pytest_benchmark": "pytest-benchmark"}  # where the import has another name


class CannotDo(click.ClickException):
    """A mistake of the user's, or something missing: one clear line on stderr, exit code 2."""

    exit_code = 2


class Rooms(click.Group):
    """A group whose subcommands are the installed entry points."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({entry.name for entry in entry_points(group=COMMANDS)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for entry in entry_points(group=COMMANDS, name=cmd_name):
            return _load(entry)
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError:
            known = ", ".join(self.list_commands(ctx))
            message = f"No such command {args[0]!r}; the commands are: {known}."
            raise click.UsageError(message, ctx) from None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(130)


def _load(entry: EntryPoint) -> click.Command:
    try:
        command = entry.load()
    except Exception as error:
        return _broken(entry, f"{type(error).__name__}: {error}".splitlines()[0])
    if not isinstance(command, click.Command):
        return _broken(entry, f"{entry.value} is a {type(command).__name__}, not a click command")
    return command


def _broken(entry: EntryPoint, reason: str) -> click.Command:
    """Stands in for a command that does not load, so that `--help` still lists the others."""
    owner = entry.dist.name if entry.dist else "an unknown distribution"

    def complain(**_: object) -> None:
        raise CannotDo(f"the command {entry.name!r} of {owner} does not load ({entry.value}): {reason}")

    return click.Command(
        entry.name,
        callback=complain,
        params=[click.Argument(["ignored"], nargs=-1, type=click.UNPROCESSED)],
        short_help=f"(does not load: {reason})",
        add_help_option=False,
        context_settings={"ignore_unknown_options": True},
    )


def need(what: str, extra: str, *modules: str) -> None:
    """Refuses what takes packages that are not installed, and says which extra brings them.

    Raises:
        CannotDo: one of the modules cannot be found.
    """
    missing = [DISTRIBUTIONS.get(name, name) for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        are = "is" if len(missing) == 1 else "are"
        raise CannotDo(
            f"{what} needs {', '.join(missing)}, which {are} not installed: pip install 'detr-spec[{extra}]'"
        )


@click.group(cls=Rooms, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="detr-spec", prog_name="detr-spec")
def main() -> None:
    """The executable specification of DETR-family detectors.

    \b
    detr-spec check reference              does an implementation agree with the spec?
    detr-spec check my_kernel.py:target    the same for your own
    detr-spec spec MSDA-14                 what does a clause say, and what tests it?
    """
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character of a clause gets a question mark instead of a crash.
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")


if __name__ == "__main__":
    main()
