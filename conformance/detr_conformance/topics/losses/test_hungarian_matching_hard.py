"""Exact solutions, boxes of every kind, large calls, many of them (chapter 15, HM-25 to HM-28)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from detr_conformance.harness.block import make
from detr_conformance.harness.block_case import call_with, inputs_of
from detr_conformance.harness.case import Case
from detr_conformance.harness.mismatch import expect
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.topics.every_block.checks import LEAKED, in_two_threads, tensors_alive
from detr_conformance.topics.losses.cases.hard_matching import (
    exchanges,
    large_matchings,
    published_hungarian_matching,
    rings,
    telling_boxes,
)
from detr_conformance.topics.losses.checks.matching import KEYS, is_cheapest

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


@covers("HM-28", cases=published_hungarian_matching, once=True, costly=True)
def test_threads_and_many_calls(subject: Subject, case: Case) -> None:
    """Two threads with other numbers of one shape; then steps of a training, whose predictions have a graph."""
    names = ("pred_logits", "pred_boxes", "target_labels", "target_boxes")
    tries = (case, case.having(**{name: case[name].flip(0) for name in names}))
    alone = [matched(subject, tried)() for tried in tries]
    for each, right in zip(in_two_threads([matched(subject, tried) for tried in tries], 8), alone, strict=True):
        same = all(torch.equal(found, right) for found in each)
        expect(same, "in one of two threads the pairs are others than alone", where="query")
    before = tensors_alive()
    for _ in range(12):
        with torch.enable_grad():
            matched(subject, case.having(pred_logits=case["pred_logits"].clone().requires_grad_() * 1))()
    left = tensors_alive() - before
    expect(left <= LEAKED, f"{left} more tensors are alive after 12 steps of training", where="memory")


def matched(subject: Subject, case: Case) -> Callable[[], Tensor]:
    """A call without the guards, which are for one thread: the queries and boxes that are paired."""
    made = make(subject, case)
    given = {name: tensor.to(subject.device) for name, tensor in inputs_of(OPERATION, case).items()}

    def call() -> Tensor:
        found = call_with(OPERATION, made, given)
        return torch.stack([found[name] for name in KEYS]).cpu()

    return call
