"""The terminal's report as a web page."""

from __future__ import annotations

import io
from collections.abc import Sequence

from rich.console import Console

from detr_conformance.evidence.clauses import Chapter
from detr_conformance.reporting.report import Report
from detr_conformance.reporting.terminal import print_report, print_summary, verdict_line

WIDTH = 120


def web_page(reports: Sequence[Report], chapters: Sequence[Chapter]) -> str:
    """The reports one after another, with a summary if there are several."""
    console = Console(record=True, file=io.StringIO(), width=WIDTH, highlight=False, force_terminal=True)
    for report in reports:
        if report["clauses"]:
            print_report(console, report, chapters)
        else:
            console.print(verdict_line(report))
    if len(reports) > 1:
        print_summary(console, reports)
    return console.export_html()
