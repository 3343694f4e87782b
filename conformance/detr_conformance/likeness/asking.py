"""From the failures of a run to the mutants that the target behaves like, by way of a process of its own."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from detr_conformance.evidence.catalogue import mutants
from detr_conformance.reporting.events import Event
from detr_conformance.reporting.report import Report
from detr_conformance.reporting.selection import Selection
from detr_conformance.running.runner import follow_process, suite_environment

SECONDS = 300.0  # for all operations; who is not done by then has no name
MOST_CASES = 24  # of one operation: an implementation that is wrong throughout fails nearly every test
LARGEST_PROFILES = ("full-size", "training")  # whose cases no mutant is asked
FIRST_DTYPES = ("float32", "float64", "bfloat16", "float16")


def behaves_like(target: str, selection: Selection, report: Report, results: Sequence[Event]) -> list[dict[str, Any]]:
    """What a report says of the mutants whose results a failing target reproduces; nothing in case of doubt."""
    operations = _operations(report, results)
    if report["verdict"] != "fail" or selection.profile in LARGEST_PROFILES or not operations:
        return []
    request = {"target": target, "selection": asdict(selection), "operations": operations, "seconds": SECONDS}
    with tempfile.TemporaryDirectory(prefix="detr-spec-") as folder:
        asked, events, output = (Path(folder) / name for name in ("request.json", "events.jsonl", "output.txt"))
        asked.write_text(json.dumps(request), encoding="utf-8")
        command = [sys.executable, "-P", "-m", "detr_conformance.likeness.beside", str(asked), str(events)]
        said = _followed(command, selection, events, output)
    if not any(event["event"] == "finish" for event in said):
        return []
    found = [entry(event, operations) for event in said if event["event"] == "likeness"]
    return [each for each in found if each is not None]


def _operations(report: Report, results: Sequence[Event]) -> dict[str, Any]:
    """By operation: the verdicts of the clauses that were judged, and the cases behind those that failed.

    If all that was asked is undecided, the cases behind that.
    """
    verdicts = {clause: entry["verdict"] for clause, entry in report["clauses"].items()}
    wrong = {clause for clause, verdict in verdicts.items() if verdict in ("fail", "warn", "undecided")}
    found: dict[str, list[Event]] = {}
    for outcome in ("fail", "undecided"):
        for result in results if not found else ():
            if result["outcome"] == outcome and result.get("case_file") and wrong & set(result["clauses"]):
                found.setdefault(result["operation"], []).append(result)
    # A quick run may pass a clause that another one fails.
    known = verdicts if report["environment"].get("profile") != "smoke" else {}
    return {operation: {"verdicts": known, "failed": shown(several)} for operation, several in found.items()}


def shown(failed: Sequence[Event]) -> list[dict[str, str]]:
    """The failures that are shown again: each test in one dtype before any in another."""
    place = {dtype: number for number, dtype in enumerate(FIRST_DTYPES)}
    ordered = sorted(failed, key=lambda result: (place.get(result["dtype"], len(place)), result["test"]))
    seen: dict[str, int] = {}
    turns = []
    for result in ordered:
        name = result["test"].partition("[")[0]
        seen[name] = seen.get(name, -1) + 1
        turns.append((seen[name], result))
    chosen = [result for _, result in sorted(turns, key=lambda turn: turn[0])][:MOST_CASES]
    return [{key: result[key] for key in ("test", "device", "dtype", "case_file")} for result in chosen]


def _followed(command: list[str], selection: Selection, events: Path, output: Path) -> list[Event]:
    """All that the process says; a bar shows how far it is."""
    said: list[Event] = []
    console = Console(stderr=True, highlight=False)
    columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("which known mistake is it like?", total=None)
        total = 0
        for event in follow_process(command, suite_environment(selection), events, output):
            said.append(event)
            if event["event"] == "questions":
                total += _count(event.get("number"))
                progress.update(task, total=total)
            elif event["event"] == "answered":
                progress.advance(task)
    return said


def entry(event: Event, operations: dict[str, Any]) -> dict[str, Any] | None:
    """What is said of one operation, as far as the mutants are known by name; their summaries are read here."""
    summaries = {each.name: f"{each.summary} ({each.origin})" for each in mutants() if each.kind == "mutant"}
    operation, names = event.get("operation"), event.get("names")
    if operation not in operations or not isinstance(names, list) or not names:
        return None
    if not all(isinstance(name, str) and name in summaries for name in names):
        return None
    counts = {key: _count(event.get(key)) for key in ("cases", "probes")}
    return {"operation": operation, "names": names, "summaries": [summaries[name] for name in names], **counts}


def _count(number: Any) -> int:
    return number if isinstance(number, int) and 0 <= number < 1 << 20 else 0
