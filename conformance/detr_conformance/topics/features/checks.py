"""How far from the formula right ratios may be (spec chapter 11, "Limits")."""

from __future__ import annotations

from detr_conformance.harness.block import forward
from detr_conformance.harness.case import Case
from detr_conformance.harness.subject import Subject
from detr_conformance.topics.queries.checks.selection import limit_of, right


def ratios_agree(subject: Subject, case: Case, precise: bool = False) -> None:
    expected = right(subject, case)
    subject.compare("output", forward(subject, case), expected, limit_of(subject, expected, 3 * expected, precise))
