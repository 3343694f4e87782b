"""Who may be measured: whoever passes the check of the same operation, on the same device and in the same dtype."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from detr_conformance.evidence.clauses import load_chapters
from detr_conformance.reporting.events import Event
from detr_conformance.reporting.report import Report
from detr_conformance.reporting.selection import Selection
from detr_conformance.running.checking import judge

NAMED_CLAUSES = 4


@dataclass(frozen=True)
class Unit:
    """What one check decides on: an operation of a target (as typed), on one device and in one dtype."""

    target: str
    operation: str
    device: str
    dtype: str


@dataclass(frozen=True)
class Verdict:
    """What the check said.

    Attributes:
        verdict: "pass", "fail" or "error" (cannot tell).
        told: a few words for the table; for "fail" and "error" why there is no speed.
    """

    unit: Unit
    profile: str
    verdict: str
    told: str

    @property
    def passed(self) -> bool:
        return self.verdict == "pass"

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self.unit), "profile": self.profile, "verdict": self.verdict, "told": self.told}

    @staticmethod
    def from_dict(entry: dict[str, Any]) -> Verdict:
        unit = Unit(*(entry[name] for name in ("target", "operation", "device", "dtype")))
        return Verdict(unit, entry["profile"], entry["verdict"], entry["told"])


def check(unit: Unit, profile: str, show: Callable[[Event], None] = lambda event: None) -> Report:
    """The report of `detr-spec check` on the unit; `show` sees the suite's events as they come."""
    with tempfile.TemporaryDirectory(prefix="detr-bench-") as cases:
        selection = Selection((unit.operation,), profile, unit.device, unit.dtype, cases_dir=cases)
        return judge(unit.target, selection, load_chapters(), [], show)


def verdict_of(unit: Unit, profile: str, report: Report) -> Verdict:
    """The verdict in a few words."""
    told = {"pass": _passed, "fail": _failed, "error": _undecided}[report["verdict"]](report)
    return Verdict(unit, profile, report["verdict"], told)


def _passed(report: Report) -> str:
    known = sum(entry["verdict"] == "deviation" for entry in report["clauses"].values())
    return f"pass, {known} known deviation{'s' * (known > 1)}" if known else "pass"


def _failed(report: Report) -> str:
    failed = [name for name, entry in report["clauses"].items() if entry["verdict"] == "fail"]
    if not failed:
        return f"no speed: {report['message']}"
    more = f" and {len(failed) - NAMED_CLAUSES} more" if len(failed) > NAMED_CLAUSES else ""
    return f"no speed: fails {', '.join(failed[:NAMED_CLAUSES])}{more}"


def _undecided(report: Report) -> str:
    return f"no speed: cannot tell whether it conforms: {report['message']}"
