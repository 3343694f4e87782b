"""`detr-spec diff`: what changed between two reports."""

from __future__ import annotations

import click

from detr_reference.cli import CannotDo


@click.command(short_help="What changed between two reports.")
@click.argument("old", type=click.Path(dir_okay=False))
@click.argument("new", type=click.Path(dir_okay=False))
def diff(old: str, new: str) -> None:
    """Compare two reports that `check --json` wrote; those named .json.gz are unpacked.

    \b
    Exit status
      0  no verdict differs; errors, mismatches and environment may
      1  a verdict differs, or a clause or target came or went
      2  a file cannot be read, or is not a report
    """
    from detr_conformance.reporting.changes import pairs, remarks, verdict_changes
    from detr_conformance.reporting.json_file import FileError
    from detr_conformance.reporting.report_file import read_reports

    try:
        before, after = read_reports(old), read_reports(new)
    except FileError as error:
        raise CannotDo(str(error)) from error
    differs = False
    for title, one, other in pairs(before, after):
        verdicts, others = list(verdict_changes(one, other)), list(remarks(one, other))
        if verdicts or others:
            click.echo(click.style(title, bold=True))
        for line in [*verdicts, *others]:
            click.echo(f"  {line}")
        differs = differs or bool(verdicts)
    click.echo("verdicts differ" if differs else "no verdict differs")
    raise SystemExit(int(differs))
