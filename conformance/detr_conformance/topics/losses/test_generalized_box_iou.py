"""Generalized IoU (chapter 14, GIOU-1 to GIOU-13)."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from detr_conformance.harness.block import agrees, expectations, forward, gradients_agree, raises, run
from detr_conformance.harness.case import Case
from detr_conformance.harness.mismatch import Raised, expect, require
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.topics.losses.cases import overlap as cases
from detr_conformance.topics.losses.checks.overlap import accurate, agrees_on_exact_areas

OPERATION = "generalized_box_iou"


@covers("GIOU-1", cases=cases.all_pairs)
def test_every_pair(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("GIOU-1", cases=cases.drawn_boxes)
def test_drawn_boxes(subject: Subject, case: Case) -> None:
    agrees(subject, case)


def any_intersection(subject: Subject) -> Iterator[Case]:
    yield from cases.disjoint(subject)
    yield from cases.crossing(subject)


@covers("GIOU-2", cases=any_intersection)
def test_intersection(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("GIOU-3", cases=cases.crossing)
def test_union(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("GIOU-4", cases=any_intersection)
def test_hull(subject: Subject, case: Case) -> None:
    agrees(subject, case)


def anywhere(subject: Subject) -> Iterator[Case]:
    yield from cases.crossing(subject)
    yield from cases.any_unit(subject)


@covers("GIOU-5", cases=anywhere)
def test_corners(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("GIOU-6", cases=cases.tiny, dtypes=("float64", "float32", "bfloat16"))
def test_denominators(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("GIOU-7", cases=cases.any_unit)
def test_any_unit(subject: Subject, case: Case) -> None:
    require((case["boxes1"] < 0).any() or (case["boxes1"] > 64).any(), "coordinates outside [0, 1]")
    agrees(subject, case)


@covers("GIOU-8", cases=cases.without_area)
def test_without_area(subject: Subject, case: Case) -> None:
    agrees_on_exact_areas(subject, case)


@covers("GIOU-9", cases=cases.accurate)
def test_accuracy(subject: Subject, case: Case) -> None:
    accurate(subject, case)


@covers("GIOU-9", cases=cases.drawn_boxes, share=0.5)
def test_accuracy_of_drawn_boxes(subject: Subject, case: Case) -> None:
    accurate(subject, case)


@covers("GIOU-10", cases=cases.differentiated, feature="backward", plain=agrees)
def test_gradients(subject: Subject, case: Case) -> None:
    gradients_agree(subject, case)


@covers("GIOU-11", cases=cases.at_kinks, feature="backward")
def test_finite_gradients(subject: Subject, case: Case) -> None:
    """Which of several subgradients is not asked."""
    result = run(subject, case)
    for name in ("boxes1", "boxes2"):
        gradient = subject.gradient(name, result.gradients)
        wrong = [where.tolist() for where in (~gradient.isfinite()).nonzero()]
        expect(
            not wrong,
            f"grad_{name}{wrong[:1]} is not finite: box {case[name][wrong[0][0]].tolist() if wrong else ''}",
            where=f"grad_{name}",
            expected="finite numbers",
            got=f"{len(wrong)} of {gradient.numel()} are not",
        )


@covers("GIOU-12", cases=cases.one_call, once=True)
def test_upside_down(subject: Subject, case: Case) -> None:
    for name in ("boxes1", "boxes2"):
        for axis in (0, 1):
            boxes = case[name].clone()
            boxes[-1, [axis, axis + 2]] = boxes[-1, [axis + 2, axis]]
            raises(subject, case.having(**{name: boxes}), f"the last box of {name} is {boxes[-1].tolist()}")


@covers("GIOU-13", cases=cases.one_call)
def test_not_a_number(subject: Subject, case: Case) -> None:
    right = expectations(subject, case, backward=False)["output"]
    for axis, name in enumerate(("boxes1", "boxes2")):
        for coordinate in range(4):
            boxes = case[name].clone()
            boxes[1, coordinate] = torch.nan
            try:
                output = forward(subject, case.having(**{name: boxes}))
            except Raised:
                continue
            hidden = output.select(axis, 1).isfinite()
            expect(
                not hidden.any(),
                f"pairs of {name}[1] = {boxes[1].tolist()} have numbers",
                where=f"{name}[1, {coordinate}]",
                expected="nan, or an error",
                got=str(output.select(axis, 1).tolist()),
            )
            others = [index for index in range(len(boxes)) if index != 1]
            kept = [tensor.index_select(axis, torch.tensor(others)) for tensor in (right.expected, right.limit)]
            subject.compare("output of the other pairs", output.index_select(axis, torch.tensor(others)), *kept)
