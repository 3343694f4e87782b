"""The line of a report that says which known mistakes the target behaves like."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.padding import Padding

from detr_conformance.reporting.console import visible
from detr_conformance.reporting.report import Report

NAMED = 3  # of a class; the JSON report has all


def print_likeness(console: Console, report: Report) -> None:
    """A line for each operation whose failures look like those of known mistakes."""
    for entry in report.get("behaves_like") or ():
        console.print(visible(_headline(entry), "bold"), soft_wrap=True)
        for name, summary in list(zip(entry["names"], entry["summaries"], strict=True))[:NAMED]:
            told = summary if len(entry["names"]) == 1 else f"{name}: {summary}"
            console.print(Padding(visible(told), (0, 0, 0, 2)))


def _headline(entry: dict[str, Any]) -> str:
    names = [f"`{name}`" for name in entry["names"][:NAMED]]
    if more := len(entry["names"]) - len(names):
        names.append(f"{more} more that no probe tells apart")
    told = " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))
    counts = " and ".join(_counted(entry[key], word) for key, word in (("probes", "probe"), ("cases", "failing case")))
    return f"{entry['operation']} behaves like {told} (all of {counts})"


def _counted(number: int, word: str) -> str:
    return f"{number} {word}" + "s" * (number != 1)
