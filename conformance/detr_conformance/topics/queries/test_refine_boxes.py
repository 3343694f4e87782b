"""How a layer corrects a box (chapter 11, SEL-41 to SEL-50)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from detr_conformance.harness.block import agrees, expectations, forward, raises, run
from detr_conformance.harness.case import Case
from detr_conformance.harness.fill import Filler
from detr_conformance.harness.mismatch import require
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.topics.queries.cases.selection import (
    boxes_and_points,
    drawn_boxes,
    near_the_border,
    references_of,
    refinement_case,
)
from detr_conformance.topics.queries.checks.selection import boxes_agree

OPERATION = "refine_boxes"
NOT_HALF = ("float64", "float32")  # half precision has no numbers within 1e-3 of 1


def corrected_boxes(subject: Subject) -> Iterator[Case]:
    reference = references_of(subject, 2, 5, 4)
    yield refinement_case(subject, reference, "boxes")
    yield refinement_case(subject, reference, "no correction", torch.zeros(2, 5, 4))
    yield refinement_case(subject, references_of(subject, 2, 1100, 4), "as many as published")
    yield refinement_case(subject, references_of(subject, 17, 1, 4), "many images")


@covers("SEL-41", cases=corrected_boxes)
def test_added_before_the_sigmoid(subject: Subject, case: Case) -> None:
    boxes_agree(subject, case)


@covers("SEL-42", cases=lambda subject: near_the_border(subject, 1e-3, 0.02), dtypes=NOT_HALF)
def test_epsilon_in_both_halves(subject: Subject, case: Case) -> None:
    """Between 0 and eps, 1 - x goes on changing."""
    boxes_agree(subject, case)


def exact_borders(subject: Subject, *settings: float) -> Iterator[Case]:
    fill = Filler(subject.dtype, subject.settings.seed, "borders")
    reference = fill.chance(0.5, 2, 6, 4).double()
    delta = torch.where(reference == 0, 1.0, -1.0) * fill.uniform(3, 7, 2, 6, 4)
    for eps in settings:
        yield refinement_case(subject, reference, f"0 and 1, eps {eps}", delta, eps=eps)


def default_epsilon(subject: Subject) -> Iterator[Case]:
    """The last one does not say what eps is."""
    yield from exact_borders(subject, 1e-2, 1e-3, 1e-5)
    case = next(exact_borders(subject, 1e-3))
    yield replace(case, options={}, note="0 and 1, eps by default")


@covers("SEL-43", cases=default_epsilon)
def test_epsilon_is_a_setting(subject: Subject, case: Case) -> None:
    boxes_agree(subject, case)


def outside(subject: Subject) -> Iterator[Case]:
    """Centres and sizes beyond the image, with corrections that bring them back."""
    fill = Filler(subject.dtype, subject.settings.seed, "outside")
    for coordinates in (4, 2):
        beyond = fill.uniform(0.1, 1.5, 2, 6, coordinates)
        reference = torch.where(fill.chance(0.5, 2, 6, coordinates), -beyond, 1 + beyond)
        delta = fill.uniform(3, 7, 2, 6, 4)
        delta[..., :coordinates] *= torch.where(reference < 0, 1.0, -1.0)
        yield refinement_case(subject, reference, f"{coordinates} numbers outside", delta)


@covers("SEL-44", cases=outside)
def test_references_outside(subject: Subject, case: Case) -> None:
    boxes_agree(subject, case)


def points(subject: Subject) -> Iterator[Case]:
    yield refinement_case(subject, references_of(subject, 3, 4, 2), "points")
    yield refinement_case(subject, references_of(subject, 2, 3, 2), "points, no correction", torch.zeros(2, 3, 4))


@covers("SEL-45", cases=points)
def test_points(subject: Subject, case: Case) -> None:
    boxes_agree(subject, case)


def infinite_corrections(subject: Subject) -> Iterator[Case]:
    fill = Filler(subject.dtype, subject.settings.seed, "infinite")
    for reference in (
        references_of(subject, 2, 6, 4),
        fill.chance(0.5, 2, 6, 4).double(),
        references_of(subject, 2, 5, 2),
    ):
        signs = torch.where(fill.chance(0.5, *reference.shape[:-1], 4), 1.0, -1.0)
        yield refinement_case(subject, reference, "infinite corrections", signs * torch.inf)


@covers("SEL-46", cases=infinite_corrections)
def test_infinite_corrections(subject: Subject, case: Case) -> None:
    wanted = (case["delta"] > 0).double()
    subject.compare_exactly("output", forward(subject, case), wanted)
    if subject.backward:
        gradients = run(subject, case).gradients
        for name in ("delta", "reference"):
            gradient = subject.gradient(name, gradients)
            subject.compare_exactly(f"grad_{name}", gradient, torch.zeros_like(case[name]).double())


def leading_axes(subject: Subject) -> Iterator[Case]:
    for shape in ((4,), (3, 4), (2, 3, 2), (2, 1, 3, 4), (0, 4), (2, 0, 2), (2,), (3, 700, 4)):
        yield refinement_case(subject, references_of(subject, *shape), f"shape {shape}")


@covers("SEL-47", cases=leading_axes)
def test_any_leading_axes(subject: Subject, case: Case) -> None:
    boxes_agree(subject, case)


def smooth(subject: Subject) -> Iterator[Case]:
    """No reference at 0, eps, 1 - eps or 1, where there are two slopes."""
    yield from boxes_and_points(subject)
    yield from outside(subject)
    if subject.dtype in NOT_HALF:
        yield from near_the_border(subject, 1e-3, 0.02)


@covers("SEL-48", cases=smooth, feature="backward", plain=agrees)
def test_gradients(subject: Subject, case: Case) -> None:
    """Exactly zero for references outside [0, 1], those of the formula elsewhere."""
    gradients = run(subject, case).gradients
    for name in ("delta", "reference"):
        right = expectations(subject, case)[name]
        subject.compare(f"grad_{name}", subject.gradient(name, gradients), right.expected, right.limit)
    reference = case["reference"]
    beyond = (reference < 0) | (reference > 1)
    inside = torch.where(beyond, subject.gradient("reference", gradients).detach().cpu().double(), 0)
    subject.compare_exactly("grad_reference outside [0, 1]", inside, torch.zeros_like(inside))


@covers("SEL-49", cases=drawn_boxes, share=0.5)
def test_accuracy(subject: Subject, case: Case) -> None:
    boxes_agree(subject, case, precise=True)


def many_boxes(subject: Subject) -> Iterator[Case]:
    case = refinement_case(subject, references_of(subject, 2, 60, 4), "many boxes")
    require(case["delta"].abs().max() > 2, "large corrections")
    yield case


@covers("SEL-49", cases=many_boxes)
def test_accuracy_at_scale(subject: Subject, case: Case) -> None:
    boxes_agree(subject, case, precise=True)


@covers("SEL-50", cases=lambda subject: [next(boxes_and_points(subject))], once=True)
def test_two_or_four_numbers(subject: Subject, case: Case) -> None:
    dtype = case["delta"].dtype
    for coordinates in (1, 3, 5):
        reference = torch.full((2, 5, coordinates), 0.5, dtype=dtype)
        raises(subject, case.having(reference=reference), f"references have {coordinates} numbers")
    raises(subject, case.having(delta=torch.zeros(2, 5, 5, dtype=dtype)), "corrections have 5 numbers")
    raises(subject, case.having(delta=torch.zeros(2, 5, 2, dtype=dtype)), "corrections have 2 numbers")
