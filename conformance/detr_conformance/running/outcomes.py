"""What a test found: a result event from the exception that ended it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detr_conformance.evidence.clauses import load_clauses
from detr_conformance.harness.case_files import write_case
from detr_conformance.harness.drive import Failure, Undecided
from detr_conformance.harness.few_shapes.budget import NotTried
from detr_conformance.harness.subject import NotProvided, Subject
from detr_conformance.harness.suite_test import SuiteTest
from detr_conformance.isolation.process import NotDone
from detr_conformance.reporting.json_file import finite_or_none
from detr_conformance.reporting.selection import Selection
from detr_conformance.staging.divergence import divergence_details

if TYPE_CHECKING:
    import pytest


@dataclass(frozen=True)
class Parameter:
    """An operation, device and dtype to run a test on, or the reason why it does not apply to the target."""

    operation: str
    device: str = "-"
    dtype: str = "-"
    absent: str | None = None

    @property
    def id(self) -> str:
        return "not-provided" if self.absent else f"{self.device}-{self.dtype}"


@dataclass(frozen=True)
class Outcome:
    """What a test found: an event, and for pytest's own output a text."""

    event: dict[str, Any]
    text: str | None = None


def outcome_of(item: pytest.Item, error: BaseException | None, selection: Selection) -> Outcome:
    """The result event of a test from the exception that ended it."""
    test: SuiteTest = item.function.suite_test  # type: ignore[attr-defined]
    subject = getattr(item, "funcargs", {}).get("subject")
    parameter: Parameter = item.callspec.params["subject"]  # type: ignore[attr-defined]
    event: dict[str, Any] = {
        "event": "result",
        "test": Path(item.nodeid).name,
        "clauses": list(test.clauses),
        "operation": parameter.operation,
        "device": parameter.device,
        "dtype": parameter.dtype,
        "feature": test.feature,
        "outcome": "pass",
        "worst_error_ratio": None,
        "mismatches": None,
        "cases": 0,
        "message": None,
        "failure": None,
        "case_file": None,
    }
    if isinstance(subject, Subject):
        ratio = subject.worst_ratio
        event |= {
            "cases": subject.cases,
            "worst_error_ratio": finite_or_none(ratio),
            "mismatches": None if subject.exact is None else 0,
            "reached": subject.reached.rows(),
        }
        if subject.forms is not None:
            event |= {"forms": subject.forms.new, "left_out": subject.forms.left_out}
    if parameter.absent:
        return Outcome(event | {"outcome": "not-provided", "message": parameter.absent})
    if isinstance(error, NotProvided):
        return Outcome(event | {"outcome": "not-provided", "message": str(error)})
    if isinstance(error, NotTried | NotDone):
        return Outcome(event | {"outcome": "not-exercised", "message": str(error)})
    if isinstance(error, Failure):
        return _failure(event, test, error, subject, selection)
    if error is not None:
        message = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        return Outcome(event | {"outcome": "error", "message": message})
    return Outcome(event)


def _failure(
    event: dict[str, Any], test: SuiteTest, failure: Failure, subject: Subject | None, selection: Selection
) -> Outcome:
    mismatch, clause = failure.mismatch, test.clauses[0]
    path = selection.replay or str(
        write_case(Path(selection.cases_dir), failure.case, clause=clause, test=event["test"])
    )
    described = failure.case.describe()
    details = [described] if mismatch.detail is None else [described, mismatch.detail]
    if subject is not None and test.profile is None:
        details += divergence_details(subject, failure.case)
    if mismatch.ratio is not None:
        event["worst_error_ratio"] = finite_or_none(mismatch.ratio)
    if event["mismatches"] is not None and mismatch.count is not None:
        event["mismatches"] = int(mismatch.count.split()[0])
    undecided = isinstance(failure, Undecided)
    message = f"an ordinary call is wrong already: {mismatch.message}" if undecided else mismatch.message
    event |= {
        "outcome": "undecided" if undecided else "fail",
        "message": message,
        "failure": mismatch.told("\n".join(details)),
        "case_file": path,
    }
    clauses = load_clauses()
    text = clauses[clause].text if clause in clauses else ""
    lines = [
        f"{', '.join(test.clauses)}: {text}",
        "",
        message,
        f"case: {described}",
        f"saved: {path}",
    ]
    return Outcome(event, "\n".join(lines))
