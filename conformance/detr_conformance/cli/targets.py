"""`detr-spec targets`: what is built in or installed here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from detr_conformance.cli.completion import OperationName, TargetName
from detr_reference.cli import CannotDo

if TYPE_CHECKING:
    from rich.console import Console

    from detr_conformance.target import Target

SHORT = {"float64": "f64", "float32": "f32", "float16": "f16", "bfloat16": "bf16"}


@click.command(short_help="The targets that are built in or installed here.")
@click.argument("name", type=TargetName(), required=False)
@click.option("--operation", type=OperationName(), help="Only those that provide it.")
def targets(name: str | None, operation: str | None) -> None:
    """List the targets that `check` knows by name: the built-in ones and those of installed packages.

    With NAME, or the beginning of several, all that these say of themselves. A package brings its own with an entry
    point in the group "detr_spec.targets".
    """
    from detr_conformance.reporting.console import report_console
    from detr_conformance.running.loaders import installed_targets, load_target
    from detr_conformance.target import TargetError

    installed = {key: entry for key, entry in installed_targets().items() if key.startswith(name or "")}
    if not installed:
        begins = f" whose name begins with {name!r}" if name else ""
        raise CannotDo(f"no targets{begins} are installed; is detr-spec itself installed (pip install detr-spec)?")
    found: dict[str, Target | str] = {}
    for key in installed:
        try:
            found[key] = load_target(key)
        except TargetError as error:
            found[key] = str(error).splitlines()[0]
    if operation:
        found = {key: each for key, each in found.items() if not isinstance(each, str) and operation in each.provides}
    if name is None:
        _print_table(report_console(), found)
        return
    for key, each in found.items():
        entry = installed[key]
        owner = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "unknown distribution"
        _print_whole(report_console(), key, f"{owner}, {entry.value}", each)


def _print_table(console: Console, found: dict[str, Target | str]) -> None:
    """A line a target; names are never cut, as they are what a user types next."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0), pad_edge=False, expand=True)
    table.add_column("target", no_wrap=True, min_width=max(map(len, found), default=0))
    table.add_column("operations", no_wrap=True, overflow="ellipsis", ratio=1)
    table.add_column("dtypes", no_wrap=True, min_width=len(" ".join(SHORT.values())))
    for name, target in found.items():
        if isinstance(target, str):
            table.add_row(Text(name), Text("cannot be loaded", style="yellow"), "")
            continue
        count = len(target.provides)
        provided = Text(next(iter(target.provides)) if count == 1 else f"{count}: {', '.join(target.provides)}")
        table.add_row(Text(name), provided, " ".join(SHORT[dtype] for dtype in target.dtypes))
    console.print(table)
    console.print(Text("`detr-spec targets NAME` says all of one", style="dim"))


def _print_whole(console: Console, name: str, owner: str, target: Target | str) -> None:
    from rich.text import Text

    console.print(Text.assemble((name, "bold"), "   ", (owner, "dim")), soft_wrap=True)
    if isinstance(target, str):
        console.print(Text.assemble("  ", ("cannot be loaded: ", "yellow"), target), soft_wrap=True)
        return
    variants = ", ".join(f"{variant}: {choice}" for variant, choice in target.variants.items())
    for key, said in (
        ("operations", ", ".join(target.provides)),
        ("dtypes", f"{', '.join(target.dtypes)} on {', '.join(target.devices)}"),
        ("features", ", ".join(target.features)),
        ("variants", variants),
    ):
        if said:
            console.print(Text(f"  {key:<10}  {said}"), soft_wrap=True)
