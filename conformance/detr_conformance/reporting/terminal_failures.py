"""The part of a report that shows what failed: the clause in its own words, the numbers, and how to see it again."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markdown import Markdown
from rich.padding import Padding
from rich.rule import Rule
from rich.text import Text

from detr_conformance.evidence.clauses import Clause, compact_ids
from detr_conformance.reporting.console import STYLES, visible
from detr_conformance.reporting.report import Report

IN_FULL = 12  # an implementation that is wrong throughout fails nearly every clause
DETAIL_LINES = 20
DETAIL_INDENT = 12
OTHER_TESTS = 4

# As `detr_conformance.staging.divergence` tells them.
FIRST_STAGE = re.compile(r"^first divergence: stage ([^,\s]+),", re.MULTILINE)
FIRST_PART = re.compile(r"^inside it: ([^,\s]+),", re.MULTILINE)


def following(report: Report) -> dict[str, str]:
    """Clauses that follow from another one -> that one."""
    return {name: each["clause"] for each in report.get("findings") or () for name in each["follows"]}


def print_causes(console: Console, report: Report, clauses: Mapping[str, Clause]) -> None:
    """Before everything else: what to do, what it is like, and which clause to look at first."""
    found = report.get("findings") or ()
    lines = list(report.get("hints") or ())
    if found:
        clause, entry = clauses[found[0]["clause"]], report["clauses"][found[0]["clause"]]
        lines += _parted(entry)
        lines.append(f"look at {clause.id} first: {clause.short}; {_essence(entry)}")
    for line in lines:
        console.print(Text.assemble(("FAIL", STYLES["fail"]), "  "), end="")
        console.print(visible(line, "bold"), soft_wrap=True)


def _parted(entry: Mapping[str, Any]) -> list[str]:
    """Of a model that names its stages, the first that differs, and the part of it."""
    told = str((entry["failure"] or {}).get("detail") or "")
    stage, inside = FIRST_STAGE.search(told), FIRST_PART.search(told)
    if stage is None:
        return []
    return [f"the first stage that differs is {stage[1]}" + (f", and inside it {inside[1]}" if inside else "")]


def _essence(entry: Mapping[str, Any]) -> str:
    """The message of a failure, or where it is and by how much."""
    return str(entry["message"] or "").rstrip(".")


def print_failures(console: Console, report: Report, clauses: Mapping[str, Clause]) -> None:
    """A section for each clause to look at, and each warning; the first dozen in full, then the essence."""
    follows = {each["clause"]: each["follows"] for each in report.get("findings") or ()}
    echoes = following(report)
    order = [*follows, *(name for name in report["clauses"] if name not in follows and name not in echoes)]
    found = [
        (clauses[name], entry, follows.get(name, []))
        for name, entry in ((name, report["clauses"][name]) for name in order)
        if entry["verdict"] in ("fail", "warn")
    ]
    for clause, entry, more in found[:IN_FULL]:
        _print_section(console, clause, entry, more)
    for clause, entry, more in found[IN_FULL:]:
        console.print()
        console.print(_title(clause, entry))
        _print_message(console, entry)
        _print_follows(console, more)
        _print_replay(console, entry)
    _print_undecided(console, report)


def _print_follows(console: Console, more: Sequence[str]) -> None:
    if more:
        clauses = "clauses follow" if len(more) > 1 else "clause follows"
        _print_field(console, "follows", f"{len(more)} more {clauses} from it: {compact_ids(more)}")


def _print_undecided(console: Console, report: Report) -> None:
    """A line for each thing that stands in the way; the plain call itself, if nothing was decided."""
    reasons: dict[str, list[str]] = {}
    for name, entry in report["clauses"].items():
        if entry["verdict"] == "undecided":
            behind = entry["undecided"]
            told = f"because of {behind['clause']}" if behind["clause"] else str(behind["message"]).partition(":")[0]
            reasons.setdefault(told, []).append(name)
    if reasons:
        console.print()
    for told, names in reasons.items():
        console.print(visible(f"undecided: {compact_ids(names)} ({told})", STYLES["undecided"]))
    if reasons and not any(entry["verdict"] in ("fail", "warn") for entry in report["clauses"].values()):
        first = next(entry for entry in report["clauses"].values() if entry["verdict"] == "undecided")
        _print_message(console, first)
        _print_replay(console, first)


def _title(clause: Clause, entry: Mapping[str, Any]) -> Text:
    style = STYLES[entry["verdict"]]
    level = f"{clause.id} ({clause.level})"
    return Text.assemble((level, style), f" {clause.short} ", (entry["verdict"].upper(), style))


def _print_section(console: Console, clause: Clause, entry: Mapping[str, Any], more: Sequence[str]) -> None:
    failure = entry["failure"] or {}
    console.print()
    line = "-" if console.options.ascii_only else "─"
    console.print(Rule(_title(clause, entry), align="left", style="dim", characters=line))
    console.print(Padding(Markdown(clause.requirement), (0, 2)))
    if why := clause.notes.get("Why"):
        console.print(Padding(Markdown(f"*Why.* {why}"), (0, 2)))
    console.print()
    if not _repeats(entry["message"], failure):
        _print_message(console, entry)
    for key in ("test", "where", "expected", "got", "limit", "count"):
        if failure.get(key):
            _print_field(console, key, str(failure[key]))
    if failure.get("detail"):
        _print_detail(console, str(failure["detail"]))
    _print_others(console, [test for test in entry["failed_tests"] if test != failure.get("test")])
    _print_follows(console, more)
    _print_replay(console, entry)


def _repeats(message: str | None, failure: Mapping[str, Any]) -> bool:
    """Whether the message only strings together the numbers that are shown below it."""
    return bool(message) and all(str(failure.get(key)) in str(message) for key in ("where", "expected", "got"))


def _print_message(console: Console, entry: Mapping[str, Any]) -> None:
    if entry["message"]:
        console.print(Padding(visible(entry["message"], "bold"), (0, 2)))


def _print_detail(console: Console, detail: str) -> None:
    lines = textwrap.dedent(detail).strip("\n").splitlines()
    for line in [*lines[:DETAIL_LINES], *(["..."] if len(lines) > DETAIL_LINES else [])]:
        if line.startswith(" "):  # code and tables lose their shape when they are wrapped
            console.print(visible(DETAIL_INDENT * " " + line, "dim"), soft_wrap=True)
        else:
            console.print(Padding(visible(line, "dim"), (0, 2, 0, DETAIL_INDENT)))


def _print_others(console: Console, tests: list[str]) -> None:
    if tests:
        more = f" and {len(tests) - OTHER_TESTS} more" if len(tests) > OTHER_TESTS else ""
        _print_field(console, "also", ", ".join(tests[:OTHER_TESTS]) + more)


def _print_replay(console: Console, entry: Mapping[str, Any]) -> None:
    if entry["replay"]:
        _print_field(console, "replay", entry["replay"], "cyan")


def _print_field(console: Console, key: str, value: str, style: str = "") -> None:
    # Not wrapped: the test's name and the command are there to be copied.
    console.print(Text(f"  {key:<9} ", style="dim"), end="")
    console.print(visible(value, style), soft_wrap=True)
