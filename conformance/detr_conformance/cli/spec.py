"""`detr-spec spec`: what a clause says, and what stands behind it."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from detr_conformance.cli.completion import ClauseId
from detr_reference.cli import CannotDo

if TYPE_CHECKING:
    from rich.console import Console

    from detr_conformance.evidence.clauses import Chapter, Clause


@click.command(short_help="A clause: its text, its tests, its mutants.")
@click.argument("clause", metavar="[ID]", required=False, type=ClauseId())
def spec(clause: str | None) -> None:
    """Show the clause ID: its text, the tests that cover it, the mutants that it must reject.

    The beginning of an id, such as MSDA, lists those clauses; without ID all of them are listed.
    """
    from detr_conformance.evidence.catalogue import CatalogueError
    from detr_conformance.evidence.clauses import ClauseError, load_chapters
    from detr_conformance.reporting.console import report_console

    try:
        chapters = load_chapters()
        _show(report_console(), chapters, (clause or "").strip().upper())
    except (ClauseError, CatalogueError) as error:
        raise CannotDo(str(error)) from error


def _show(console: Console, chapters: Sequence[Chapter], wanted: str) -> None:
    clauses = {clause.id: clause for chapter in chapters for clause in chapter.clauses}
    if wanted in clauses:
        _print_clause(console, clauses[wanted])
        return
    prefixes = sorted({clause_id.rpartition("-")[0] for clause_id in clauses})
    if wanted and wanted.rstrip("-") not in prefixes:
        close = difflib.get_close_matches(wanted, [*clauses, *prefixes], n=1)
        hint = f"did you mean {close[0]}?" if close else f"ids begin with {', '.join(prefixes)}"
        raise CannotDo(f"no clause {wanted!r}; {hint}")
    for chapter in chapters:
        _print_list(console, chapter, wanted.rstrip("-"))


def _print_list(console: Console, chapter: Chapter, prefix: str) -> None:
    from rich.table import Table
    from rich.text import Text

    from detr_conformance.evidence.clauses import natural_key

    clauses = [clause for clause in chapter.clauses if not prefix or clause.id.startswith(f"{prefix}-")]
    if not clauses:
        return
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    for clause in sorted(clauses, key=lambda clause: natural_key(clause.id)):
        level = f"{clause.level}, {clause.condition}".replace("`", "") if clause.condition else clause.level
        table.add_row(clause.id, Text(clause.short), Text(level, style="dim"))
    console.print(Text(f"\n{chapter.title}", style="bold"), Text(chapter.file, style="dim"), sep="   ")
    console.print(table)


def _print_clause(console: Console, clause: Clause) -> None:
    from rich.markdown import Markdown
    from rich.text import Text

    from detr_conformance.evidence.catalogue import covering_tests, mutants

    level = f"{clause.level}, {clause.condition}".replace("`", "") if clause.condition else clause.level
    console.print(Text.assemble((f"{clause.id} ({level})", "bold cyan"), "  ", (clause.title, "bold")))
    console.print(Text(f"{clause.chapter}:{clause.line}\n", style="dim"), soft_wrap=True)
    console.print(Markdown(_one_paragraph_a_note(clause)))
    tests = [
        (test.test, f"topics/{test.file}:{test.line}", "") for test in covering_tests() if test.clause == clause.id
    ]
    _print_places(console, "tests", tests)
    rejected = [
        (mutant.name, f"topics/{mutant.file}:{mutant.line}", mutant.origin)
        for mutant in mutants()
        if mutant.clause == clause.id
    ]
    _print_places(console, "mutants it must reject", rejected)


def _one_paragraph_a_note(clause: Clause) -> str:
    notes = [f"*{name}.* {text}" for name, text in clause.notes.items()]
    return "\n\n".join([clause.requirement, *notes])


def _print_places(console: Console, title: str, rows: Sequence[tuple[str, str, str]]) -> None:
    from rich.text import Text

    console.print(Text(f"\n{title}", style="bold"), "" if rows else Text("none", style="dim"))
    for name, place, origin in rows:
        console.print(Text.assemble("  ", name, "  ", (place, "dim")), soft_wrap=True)
        if origin:
            console.print(Text(f"    {origin}", style="dim"))
