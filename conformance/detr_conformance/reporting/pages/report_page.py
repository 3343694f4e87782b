"""`detr-spec check --html`: the reports of a run as one file that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from detr_conformance.evidence.clauses import Chapter
from detr_conformance.reporting.pages.rendering import rendered
from detr_conformance.reporting.pages.view import view_of
from detr_conformance.reporting.report import Report


def web_page(reports: Sequence[Report], chapters: Sequence[Chapter], cases: Path | None = None) -> str:
    """The page; names of case files count from the folder `cases`, without which no case is drawn."""
    several = len(reports) > 1
    views = [
        view_of(report, chapters, anchor=f"t{number}-" if several else "", cases=cases)
        for number, report in enumerate(reports, start=1)
    ]
    return rendered("report.html", views=views)
