"""The losses of boxes of every kind, and of large calls (chapter 15, LOSS-31 to LOSS-33)."""

from __future__ import annotations

import torch

from detr_conformance.harness.block import compare_result, expectations, make, run
from detr_conformance.harness.block_case import call_with, inputs_of
from detr_conformance.harness.case import Case
from detr_conformance.harness.expectation import Expectation
from detr_conformance.harness.subject import Subject, explained
from detr_conformance.harness.suite_test import covers
from detr_conformance.topics.losses.cases.any_boxes import boxes_of_any_kind
from detr_conformance.topics.losses.cases.crowded_losses import (
    full_images,
    many_of_each,
    published_detection_losses,
)
from detr_conformance.topics.losses.checks.losses import losses_agree

OPERATION = "detection_losses"


STEEP = 2.0**-15  # a power of a small probability, taken by its logarithm, is off by many roundings


def _agree(subject: Subject, case: Case) -> None:
    """Losses, and where the target has them the gradients."""
    if not subject.backward:
        losses_agree(subject, case)
        return
    right = {
        name: Expectation(each.expected, each.limit + STEEP * each.expected.abs()) if name.endswith("logits") else each
        for name, each in expectations(subject, case).items()
    }
    compare_result(subject, run(subject, case), right)


@covers("LOSS-31", cases=boxes_of_any_kind, dtypes=("float64", "float32"), once=True)
def test_boxes_of_any_kind(subject: Subject, case: Case) -> None:
    _agree(subject, case)


@covers("LOSS-32", cases=full_images, dtypes=("float64", "float32"), once=True)
def test_full_images(subject: Subject, case: Case) -> None:
    _agree(subject, case)


@covers("LOSS-33", cases=many_of_each, once=True)
def test_any_number_of_each(subject: Subject, case: Case) -> None:
    _agree(subject, case)


@covers("LOSS-33", cases=published_detection_losses, once=True, costly=True)
def test_losses_of_published_size(subject: Subject, case: Case) -> None:
    """After a step with a single box: whose number is not that of this one."""
    counts = torch.zeros_like(case["target_counts"])
    counts[0] = 1
    first = {name: case[name][:1] for name in ("target_labels", "target_boxes")}
    step = inputs_of(OPERATION, case.having(**first, target_counts=counts, dn_logits=None, dn_boxes=None))
    given = {name: tensor.to(subject.device) for name, tensor in step.items()}
    given["pred_logits"] = given["pred_logits"].clone().requires_grad_(subject.backward)
    with explained("a call with one box"):
        call_with(OPERATION, make(subject, case), given)
    _agree(subject, case)
