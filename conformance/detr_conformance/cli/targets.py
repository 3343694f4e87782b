"""`detr-spec targets`: what is built in or installed here."""

from __future__ import annotations

import click

from detr_reference.cli import CannotDo


@click.command(short_help="The targets that are built in or installed here.")
def targets() -> None:
    """List the targets that `check` knows by name: the built-in ones and those of installed packages.

    A package brings its own with an entry point in the group "detr_spec.targets".
    """
    from rich.text import Text

    from detr_conformance.reporting.console import report_console
    from detr_conformance.running.loaders import installed_targets, load_target
    from detr_conformance.target import TargetError

    installed = installed_targets()
    if not installed:
        raise CannotDo("no targets are installed; is detr-spec itself installed (pip install detr-spec)?")
    console = report_console()
    for name, entry in installed.items():
        owner = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "unknown distribution"
        console.print(Text.assemble((name, "bold"), "   ", (f"{owner}, {entry.value}", "dim")), soft_wrap=True)
        try:
            target = load_target(name)
        except TargetError as error:
            reason = str(error).splitlines()[0]
            console.print(Text.assemble("  ", ("cannot be loaded: ", "yellow"), reason), soft_wrap=True)
            continue
        console.print(Text(f"  operations  {', '.join(target.provides)}"), soft_wrap=True)
        console.print(Text(f"  dtypes      {', '.join(target.dtypes)} on {', '.join(target.devices)}"), soft_wrap=True)
        if target.features:
            console.print(Text(f"  features    {', '.join(target.features)}"), soft_wrap=True)
        if target.variants:
            variants = ", ".join(f"{variant}: {choice}" for variant, choice in target.variants.items())
            console.print(Text(f"  variants    {variants}"), soft_wrap=True)
