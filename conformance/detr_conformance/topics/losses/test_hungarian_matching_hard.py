"""Exact solutions, boxes of every kind, large calls (chapter 15, HM-25 to HM-27)."""

from __future__ import annotations

from detr_conformance.harness.case import Case
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.topics.losses.cases.hard_matching import (
    exchanges,
    large_matchings,
    published_hungarian_matching,
    rings,
    telling_boxes,
)
from detr_conformance.topics.losses.checks.matching import is_cheapest

OPERATION = "hungarian_matching"


@covers("HM-25", cases=telling_boxes, dtypes=("float64", "float32"), once=True)
def test_boxes_of_any_kind_are_matched(subject: Subject, case: Case) -> None:
    is_cheapest(subject, case)


@covers("HM-26", cases=rings, dtypes=("float64", "float32"))
def test_long_exchanges(subject: Subject, case: Case) -> None:
    is_cheapest(subject, case)


@covers("HM-26", cases=exchanges, dtypes=("float64", "float32"))
def test_more_than_short_exchanges(subject: Subject, case: Case) -> None:
    is_cheapest(subject, case)


@covers("HM-27", cases=large_matchings, once=True)
def test_any_size(subject: Subject, case: Case) -> None:
    is_cheapest(subject, case)


@covers("HM-27", cases=published_hungarian_matching, once=True)
def test_matching_of_published_size(subject: Subject, case: Case) -> None:
    is_cheapest(subject, case)
