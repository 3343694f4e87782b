"""The sine embedding of boxes (chapter 8, POS-16 to POS-23)."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from detr_conformance.harness.block import agrees, forward, raises, run
from detr_conformance.harness.case import Case
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.topics.positions.cases import (
    box_case,
    boxes_of,
    drawn_boxes,
    points_and_boxes,
    with_option,
)
from detr_conformance.topics.positions.checks import box_agrees, box_gradient_right, box_right

OPERATION = "box_position_embedding"


@covers("POS-17", cases=points_and_boxes)
def test_order_of_the_coordinates(subject: Subject, case: Case) -> None:
    """A changed coordinate changes its own quarter (half, of points) of the channels and leaves the others."""
    boxes = case["boxes"]
    first, right = forward(subject, case).detach().cpu().double(), box_right(subject, case)
    for place, coordinate in enumerate((1, 0, 2, 3)[: boxes.shape[-1]]):
        moved = boxes.clone()
        moved[..., coordinate] += 0.25
        other = case.having(boxes=moved)
        second, limit = forward(subject, other).detach().cpu().double(), right.limit + box_right(subject, other).limit
        parts = zip(*(t.chunk(boxes.shape[-1], -1) for t in (first, second, right.expected, limit)), strict=True)
        for at, (before, after, expected, slack) in enumerate(parts):
            if at != place:
                subject.compare(f"channels {at} of coordinate {coordinate}", after, before, slack)
            else:
                change = box_right(subject, other).expected.chunk(boxes.shape[-1], -1)[at] - expected
                subject.compare(f"change with coordinate {coordinate}", after - before, change, slack)


def beyond(subject: Subject) -> Iterator[Case]:
    yield box_case(subject, boxes_of(subject, 2, 5, 4), "inside")
    yield box_case(subject, boxes_of(subject, 2, 6, 4, low=-1.5, high=2.5), "beyond the image")
    yield box_case(subject, boxes_of(subject, 1, 6, 2, low=-1.5, high=2.5), "points beyond the image")


@covers("POS-18", cases=beyond)
def test_coordinates_as_they_are(subject: Subject, case: Case) -> None:
    box_agrees(subject, case)


def waves(subject: Subject) -> Iterator[Case]:
    for num_pos_feats, temperature in ((6, 10000.0), (10, 20.0), (64, 300.0)):
        for coordinates in (2, 4):
            yield box_case(
                subject,
                boxes_of(subject, 2, 3, coordinates),
                f"temperature {temperature:g}",
                num_pos_feats=num_pos_feats,
                temperature=temperature,
            )


@covers("POS-19", cases=waves)
def test_waves_of_a_coordinate(subject: Subject, case: Case) -> None:
    box_agrees(subject, case)


def leading_axes(subject: Subject) -> Iterator[Case]:
    for shape in ((4,), (3, 4), (2, 3, 2), (2, 1, 3, 4), (0, 4), (2, 0, 2)):
        yield box_case(subject, boxes_of(subject, *shape), f"shape {shape}")


@covers("POS-20", cases=leading_axes)
def test_any_leading_axes(subject: Subject, case: Case) -> None:
    box_agrees(subject, case)


@covers("POS-21", cases=drawn_boxes, share=0.5)
def test_accuracy(subject: Subject, case: Case) -> None:
    box_agrees(subject, case, precise=True)


@covers(
    "POS-21",
    cases=lambda subject: [box_case(subject, boxes_of(subject, 2, 30, 4), "as in a detector", num_pos_feats=128)],
)
def test_accuracy_at_scale(subject: Subject, case: Case) -> None:
    box_agrees(subject, case, precise=True)


@covers(
    "POS-22", cases=lambda subject: [*points_and_boxes(subject), *beyond(subject)], feature="backward", plain=agrees
)
def test_gradients(subject: Subject, case: Case) -> None:
    right = box_gradient_right(subject, case)
    subject.compare("grad_boxes", subject.gradient("boxes", run(subject, case).gradients), right.expected, right.limit)


@covers("POS-23", cases=lambda subject: [next(points_and_boxes(subject))], once=True)
def test_two_or_four_coordinates(subject: Subject, case: Case) -> None:
    for coordinates in (1, 3, 5):
        boxes = torch.full((2, 3, coordinates), 0.5, dtype=case["boxes"].dtype)
        raises(subject, case.having(boxes=boxes), f"boxes have {coordinates} coordinates")


@covers("POS-16", cases=lambda subject: [next(points_and_boxes(subject))], once=True)
def test_even_number_of_channels(subject: Subject, case: Case) -> None:
    raises(subject, with_option(case, "num_pos_feats", 5), "num_pos_feats is 5")
