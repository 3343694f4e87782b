"""What failed: first what names the cause most narrowly, each with its echoes, its numbers and its drawings."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from detr_conformance.reporting.pages import plain
from detr_conformance.reporting.pages.case_reading import tensors_drawn
from detr_conformance.reporting.pages.drawings.band import band
from detr_conformance.reporting.pages.drawings.maps import legend
from detr_conformance.reporting.pages.drawings.of_case import drawings_of
from detr_conformance.reporting.pages.drawings.stages import stage_ladder, told_stages
from detr_conformance.reporting.pages.drawings.svg import Drawing
from detr_conformance.reporting.pages.judged import Judged, of_verdict

FIELDS = ("where", "expected", "got", "limit", "count")
DETAIL_LINES = 40


@dataclass(frozen=True)
class Finding:
    """One failure, and the clauses that fail because of it."""

    judged: Judged
    follows: tuple[Judged, ...]
    drawings: tuple[Drawing, ...]
    undrawn: str  # why there is no drawing of the case
    legend: Markup | None

    @property
    def numbers(self) -> dict[str, str]:
        """The numbers that matter, by name."""
        return {name: said for name in FIELDS if (said := self.judged.failure.get(name))}

    @property
    def detail(self) -> str:
        lines = textwrap.dedent(self.judged.failure.get("detail", "")).strip("\n").splitlines()
        return "\n".join([*lines[:DETAIL_LINES], *(["..."] if len(lines) > DETAIL_LINES else [])])

    @property
    def others(self) -> list[str]:
        """Further tests that failed."""
        return [test for test in self.judged.failed_tests if test != self.judged.failure.get("test")]


def findings_of(report: Mapping[str, Any], judged: Mapping[str, Judged], cases: Path | None) -> list[Finding]:
    """Every failed clause once, as a finding or among those that follow from one; if nothing could be decided, the
    plain call that stands in the way.

    Args:
        report: whose `findings`, where it has them, say the order.
        judged: its clauses.
        cases: the folder from which the names of case files count; None if no case is to be read.
    """
    failed = {each.id: each for each in of_verdict(judged, "fail")}
    found: list[tuple[Judged, tuple[Judged, ...]]] = []
    for finding in map(plain.as_map, plain.as_list(report.get("findings"))):
        first = failed.pop(plain.as_text(finding.get("clause")), None)
        if first is not None:
            echoes = [failed.pop(name, None) for name in plain.as_texts(finding.get("follows"))]
            found.append((first, tuple(echo for echo in echoes if echo)))
    found += [(each, ()) for each in failed.values()]
    if not found and not of_verdict(judged, "warn"):
        found = [(each, ()) for each in of_verdict(judged, "undecided")[:1]]
    return [_finding(first, echoes, cases) for first, echoes in found]


def _finding(judged: Judged, follows: tuple[Judged, ...], cases: Path | None) -> Finding:
    failure = judged.failure
    of_case, undrawn = _of_case(judged, cases)
    of_number = band(*(failure.get(name, "") for name in ("expected", "got", "limit")))
    of_stages = stage_ladder(told_stages(failure.get("detail", "")))
    drawings = (*filter(None, (of_number, of_stages)), *of_case)
    samples = any("level" in drawing.title and "mask" not in drawing.title for drawing in of_case)
    return Finding(judged, follows, drawings, undrawn, legend() if samples else None)


def _of_case(judged: Judged, cases: Path | None) -> tuple[list[Drawing], str]:
    if not judged.case_file or cases is None:
        return [], ""
    tensors = tensors_drawn(cases / judged.case_file)
    return ([], tensors) if isinstance(tensors, str) else (drawings_of(tensors, judged.failure.get("where", "")), "")
