"""A report for human eyes: a table by clause, what failed and how to see it again, one line of verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from detr_conformance.evidence.clauses import Chapter, compact_ids, natural_key
from detr_conformance.reporting.console import STYLES, visible
from detr_conformance.reporting.report import Report
from detr_conformance.reporting.terminal_failures import following, print_causes, print_failures
from detr_conformance.reporting.terminal_likeness import print_likeness

SILENT = ("not-provided", "not-exercised")
FEW = 4  # clauses that are named one by one


def print_report(console: Console, report: Report, chapters: Sequence[Chapter]) -> None:
    """The whole of one target's report."""
    clauses = {clause.id: clause for chapter in chapters for clause in chapter.clauses}
    console.print(_heading(report))
    print_likeness(console, report)
    print_causes(console, report, clauses)
    _print_chapters(console, report, chapters)
    for line in _silent_lines(report):
        console.print(line)
    if report["environment"].get("profile") == "full-size":
        left_out = "; ".join(report.get("sizes_left_out") or ["none"])
        console.print(Text(f"pairs of sizes that no call may have, as it would be too large: {left_out}", style="dim"))
    for line in _left_out_lines(report):
        console.print(line)
    print_failures(console, report, clauses)
    _print_deviations(console, report)
    console.print()
    console.print(verdict_line(report), soft_wrap=True)


def print_summary(console: Console, reports: Sequence[Report]) -> None:
    """One row a target; names are never cut, as they are what a user types next."""
    table = _plain_table("target", "version", "verdict", "clauses")
    for column in table.columns[:3]:
        column.no_wrap, column.overflow = True, "fold"
    table.columns[0].min_width = max((len(report["target"]["name"]) for report in reports), default=0)
    for report in reports:
        name, version = report["target"]["name"], report["target"]["version"] or ""
        told = report["message"] if report["verdict"] == "error" else _counts(report)
        table.add_row(Text(name), Text(version), _verdict(report["verdict"]), visible(told or ""))
    console.print()
    console.print(table)


def verdict_line(report: Report) -> Text:
    """Whether the target conforms, and the counts."""
    name, verdict = report["target"]["name"], report["verdict"]
    said = {
        "pass": f"{name} conforms{_as_far_as_asked(report)}: {_counts(report)}",
        "fail": f"{name} does not conform{_as_far_as_asked(report)}: {_counts(report)}",
        "error": f"cannot tell whether {name} conforms: {report['message']}",
    }[verdict]
    if "replay" in report.get("environment", {}):
        said = f"{name}: this case passes now" if verdict == "pass" else said
    seconds = report["times"]["seconds"]
    took = f" ({seconds:.1f} s)" if seconds is not None and verdict != "error" else ""
    took += f"; incomplete: {report['incomplete']}" if report.get("incomplete") and verdict != "error" else ""
    silent = _not_judged(report) if verdict != "error" else ""
    silent += _few_shapes(report) if verdict != "error" else ""
    return Text.assemble((verdict.upper(), STYLES[verdict]), "  ", said, took, silent)


def _as_far_as_asked(report: Report) -> str:
    asked = report.get("environment", {}).get("clauses", ())
    return f" to {', '.join(asked)} alone" if 0 < len(asked) <= FEW else f" to {len(asked)} clauses" if asked else ""


def _not_judged(report: Report) -> str:
    """What the target claims of an operation, and no test asks of it."""
    silent = report.get("claimed_and_not_judged") or {}
    told = "; ".join(f"{feature} of {', '.join(operations)}" for feature, operations in silent.items())
    return f"; claimed and not judged: {told}" if told else ""


def _few_shapes(report: Report) -> str:
    """Of how many forms the calls were, where they were to be few."""
    found = report.get("few_shapes") or {}
    told = [f"{each['forms']} of {operation}" for operation, each in found.items()]
    left = sum(each["cases_left_out"] for each in found.values())
    return f"; few shapes: {', '.join(told)}, {left} cases left out" if told else ""


def _left_out_lines(report: Report) -> Iterator[Text]:
    """The clauses that few shapes left cases out of, by operation."""
    for operation, found in (report.get("few_shapes") or {}).items():
        if found["clauses"]:
            said = f"{found['cases']} cases tried, {found['cases_left_out']} left out for their shapes, of"
            yield visible(f"few shapes, {operation}: {said} {compact_ids(found['clauses'])}", "dim")


def _counts(report: Report) -> str:
    follows = following(report)
    counts = Counter(
        "follows" if name in follows else entry["verdict"]
        for name, entry in report["clauses"].items()
        if not _of_another_operation(entry)
    )
    words = {
        "fail": "failed",
        "follows": "more that follow" + "s" * (counts["follows"] == 1),
        "undecided": "undecided",
        "pass": "passed",
        "warn": "warning" + "s" * (counts["warn"] > 1),
        "deviation": "known deviation" + "s" * (counts["deviation"] > 1),
        "not-provided": "not provided",
        "not-exercised": "not exercised",
    }
    told = [f"{counts[key]} {word}" for key, word in words.items() if counts[key]]
    unattached = report["verdict"] == "fail" and not counts["fail"]
    return ", ".join(([report["message"]] if unattached else []) + told)


def _heading(report: Report) -> Text:
    target, environment = report["target"], report["environment"]
    version = f" {target['version']}" if target["version"] else ""
    about = [f"{key} {environment[key]}" for key in ("profile", "seed", "torch") if key in environment]
    about += environment.get("devices", ())
    about += ["few shapes"] if environment.get("shapes") == "few" else []
    about += ["in a process of its own"] if environment.get("isolated") else []
    about += [f"{device} absent here" for device in environment.get("absent_devices", ())]
    return Text.assemble("\n", (f"{target['name']}{version}", "bold"), "   ", (", ".join(about), "dim"))


def _of_another_operation(entry: Mapping[str, Any]) -> bool:
    """Whether a clause is about operations alone that the target does not provide."""
    return entry["verdict"] == "not-provided" and not entry["message"]


def _plain_table(*columns: str) -> Table:
    return Table(*columns, box=None, header_style="dim", padding=(0, 2, 0, 0), pad_edge=False)


def _print_chapters(console: Console, report: Report, chapters: Sequence[Chapter]) -> None:
    """A table a chapter, of the clauses that have a verdict; the columns of all tables are aligned."""
    follows = following(report)
    for chapter in chapters:
        rows = [
            (clause, report["clauses"][clause.id])
            for clause in sorted(chapter.clauses, key=lambda clause: natural_key(clause.id))
            if clause.id in report["clauses"] and report["clauses"][clause.id]["verdict"] not in SILENT
        ]
        if not rows:
            continue
        table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0), pad_edge=False, expand=True)
        table.add_column("clause", no_wrap=True, min_width=len("MSDA-10"))
        table.add_column("requirement", no_wrap=True, overflow="ellipsis", ratio=1)
        table.add_column("verdict", no_wrap=True, min_width=len("deviation"))
        table.add_column("tests", no_wrap=True, justify="right")
        table.add_column("worst error / limit", no_wrap=True, min_width=len("480 mismatches float32"))
        for clause, entry in rows:
            tests = str(len(entry["tests"]))
            verdict = Text("follows", style="red") if clause.id in follows else _verdict(entry["verdict"])
            table.add_row(clause.id, Text(clause.short), verdict, tests, _worst(entry))
        console.print()
        console.print(Text(chapter.title, style="bold"))
        console.print(table)


def _verdict(verdict: str) -> Text:
    return Text(verdict.upper() if verdict in ("fail", "error") else verdict, style=STYLES[verdict])


def _worst(entry: Mapping[str, Any]) -> Text:
    """The largest error as a share of its limit, or the mismatches of the exact tier, and where."""
    several = len(entry["worst_error_ratio"]) > 1
    ratios = list(_leaves(entry["worst_error_ratio"]))
    mismatches = list(_leaves(entry["mismatches"]))
    ratio, where = max(ratios, default=(None, ()))
    wrong, wrong_where = max(mismatches, default=(None, ()))
    if wrong:
        return Text(f"{wrong} mismatches {_where(wrong_where, several)}", style="red")
    if ratio is not None:
        return Text(f"{_ratio(ratio):<5} {_where(where, several)}", style="red" if ratio > 1 else "")
    return Text("exact" if mismatches else "", style="dim")


def _leaves(nested: Mapping[str, Any]) -> Iterator[tuple[float, tuple[str, ...]]]:
    for operation, devices in nested.items():
        for device, dtypes in devices.items():
            for dtype, number in dtypes.items():
                if number is not None:
                    yield number, (operation, device, dtype)


def _where(place: tuple[str, ...], several_operations: bool) -> str:
    operation, device, dtype = place
    named = [dtype, "" if device in ("cpu", "-") else device, operation if several_operations else ""]
    return " ".join(part for part in named if part and part != "-")


def _ratio(ratio: float) -> str:
    if ratio == 0:
        return "0"
    if ratio < 0.01:
        return "<0.01"
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}" if ratio < 1e5 else f"{ratio:.0e}"


def _silent_lines(report: Report) -> Iterator[Text]:
    """Clauses without a verdict, a line for each kind and reason."""
    silent: dict[tuple[str, str], list[str]] = {}
    for clause_id, entry in report["clauses"].items():
        if entry["verdict"] in SILENT and not _of_another_operation(entry):
            silent.setdefault((entry["verdict"], entry["message"] or ""), []).append(clause_id)
    if silent:
        yield Text()
    for (verdict, message), ids in silent.items():
        reason = f" ({message})" if message else ""
        yield visible(f"{verdict.replace('-', ' ')}: {compact_ids(ids)}{reason}", "dim")


def _print_deviations(console: Console, report: Report) -> None:
    known = {name: entry["deviation"] for name, entry in report["clauses"].items() if entry["deviation"]}
    if known:
        console.print()
        console.print(Text("known deviations", style="bold"))
    for name, deviation in known.items():
        console.print(Padding(Text(f"{name} ({deviation['kind']}) {deviation['reason']}"), (0, 2)))
        console.print(Text(f"    {deviation['link']}", style="dim"), soft_wrap=True)
