"""`detr-spec spec`: what a clause says, and what stands behind it."""

from __future__ import annotations

import difflib
import json
import re
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
@click.option("--search", metavar="WORDS", help="List the clauses that contain these words, in any case.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: an object for one clause, an array for a list.")
def spec(clause: str | None, search: str | None, as_json: bool) -> None:
    """Show the clause ID: its text, the tests that cover it, the mutants that it must reject.

    The beginning of an id, such as MSDA, lists those clauses; without ID all of them are listed. --search looks
    at titles, requirements and notes, as one phrase. In JSON every clause of a list has its text, tests and mutants.

    \b
    Exit status
      0  shown
      1  the search found nothing
      2  there is no such clause
    """
    from detr_conformance.evidence.catalogue import CatalogueError
    from detr_conformance.evidence.clauses import ClauseError, load_chapters
    from detr_conformance.reporting.console import report_console

    try:
        chapters = load_chapters()
        wanted = (clause or "").strip().upper()
        found = clauses_named(chapters, wanted)
        if search is not None:
            found = [clause for clause in found if _contains(clause, search)]
        single = search is None and [clause.id for clause in found] == [wanted]
        if as_json:
            _print_json(found, single)
        elif single:
            _print_clause(report_console(), found[0])
        else:
            _print_list(report_console(), chapters, found)
    except (ClauseError, CatalogueError) as error:
        raise CannotDo(str(error)) from error
    if not found:
        among = f" of {wanted}" if wanted else ""
        click.echo(f"no clause{among} contains {search!r}", err=True)
        raise SystemExit(1)


def clauses_named(chapters: Sequence[Chapter], wanted: str) -> list[Clause]:
    """The clause of that id, or those whose ids begin so, in natural order within each chapter."""
    from detr_conformance.evidence.clauses import natural_key

    clauses = {clause.id: clause for chapter in chapters for clause in chapter.clauses}
    if wanted in clauses:
        return [clauses[wanted]]
    prefixes = sorted({clause_id.rpartition("-")[0] for clause_id in clauses})
    prefix = wanted.rstrip("-")
    if wanted and prefix not in prefixes:
        close = difflib.get_close_matches(wanted, [*clauses, *prefixes], n=1)
        hint = f"did you mean {close[0]}?" if close else f"ids begin with {', '.join(prefixes)}"
        raise CannotDo(f"no clause {wanted!r}; {hint}")
    return [
        clause
        for chapter in chapters
        for clause in sorted(chapter.clauses, key=lambda clause: natural_key(clause.id))
        if not prefix or clause.id.startswith(f"{prefix}-")
    ]


def _contains(clause: Clause, words: str) -> bool:
    """Whether the clause has the words, with or without the marks of its Markdown, wherever its lines end."""
    written = " ".join(f"{clause.title}. {clause.text}".casefold().split())
    sought = " ".join(words.casefold().split())
    return sought in written or sought in re.sub(r"[`*]", "", written)


def _print_json(clauses: Sequence[Clause], single: bool) -> None:
    from detr_conformance.evidence.behind import evidence_of

    described = [evidence.to_dict() for evidence in evidence_of(clauses)]
    click.echo(json.dumps(described[0] if single else described, indent=2, ensure_ascii=False))


def _print_list(console: Console, chapters: Sequence[Chapter], listed: Sequence[Clause]) -> None:
    from rich.table import Table
    from rich.text import Text

    for chapter in chapters:
        clauses = [clause for clause in listed if clause.chapter == chapter.file]
        if not clauses:
            continue
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
        for clause in clauses:
            table.add_row(clause.id, Text(clause.short), Text(_level(clause), style="dim"))
        console.print(Text(f"\n{chapter.title}", style="bold"), Text(chapter.file, style="dim"), sep="   ")
        console.print(table)


def _level(clause: Clause) -> str:
    return f"{clause.level}, {clause.condition}".replace("`", "") if clause.condition else clause.level


def _print_clause(console: Console, clause: Clause) -> None:
    from rich.markdown import Markdown
    from rich.text import Text

    from detr_conformance.evidence.behind import evidence_of, place_of

    (evidence,) = evidence_of([clause])
    console.print(Text.assemble((f"{clause.id} ({_level(clause)})", "bold cyan"), "  ", (clause.title, "bold")))
    console.print(Text(f"{clause.chapter}:{clause.line}\n", style="dim"), soft_wrap=True)
    console.print(Markdown(_one_paragraph_a_note(clause)))
    _print_places(console, "tests", [(test.test, f"{place_of(test)}:{test.line}", "") for test in evidence.tests])
    if evidence.code:
        _print_places(console, "code", [(name, file, "") for name, file in evidence.code.items()])
    rejected = [(mutant.name, f"{place_of(mutant)}:{mutant.line}", mutant.origin) for mutant in evidence.mutants]
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
