"""Exact solutions, boxes of every kind, large calls, many calls (chapter 15, HM-25 to HM-28)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from detr_conformance.harness.block import calling, make
from detr_conformance.harness.block_case import call_with
from detr_conformance.harness.case import Case
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.topics.every_block.checks import in_two_threads, nothing_kept
from detr_conformance.topics.losses.cases.hard_matching import (
    exchanges,
    large_matchings,
    published_hungarian_matching,
    rings,
    telling_boxes,
)
from detr_conformance.topics.losses.checks.matching import KEYS, is_cheapest, of_least_cost

OPERATION = "hungarian_matching"
CALLS = 60


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


@covers("HM-28", cases=exchanges, dtypes=("float64", "float32"), once=True)
def test_threads_and_many_calls(subject: Subject, case: Case) -> None:
    turned = case.having(**{name: case[name].flip(1) for name in ("pred_logits", "pred_boxes")})
    two = (case, turned)
    for several, own in zip(in_two_threads([matching(subject, each) for each in two], 8), two, strict=True):
        for found in several:
            of_least_cost(subject, own, {name: found[name].cpu() for name in KEYS})
    step_of_training(subject, case)
    with nothing_kept(f"{CALLS} steps of training"):
        for _ in range(CALLS):
            step_of_training(subject, case)


def step_of_training(subject: Subject, case: Case) -> None:
    """Predictions that have a graph."""
    computed = case["pred_logits"].clone().to(subject.device).requires_grad_() * 1
    made = make(subject, case)
    bound, inputs = calling(subject, made, case)
    call_with(subject.operation, made, bound.arguments(inputs) | {"pred_logits": computed})


def matching(subject: Subject, case: Case) -> Callable[[], Any]:
    """A call without the guards, which are for one thread and one call at a time."""
    made = make(subject, case)
    bound, inputs = calling(subject, made, case)
    arguments = bound.arguments(inputs)
    return lambda: call_with(subject.operation, made, arguments)
