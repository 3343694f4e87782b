"""Where the cells of the encoder look (chapter 11, SEL-8 to SEL-15)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from detr_conformance.harness.block import forward, raises
from detr_conformance.harness.case import Case
from detr_conformance.harness.mismatch import expect
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.topics.queries.cases.selection import (
    PYRAMID,
    drawn_pyramids,
    many_pyramids,
    padded_pyramids,
    reference_case,
    unlike_ratios,
)
from detr_conformance.topics.queries.checks.selection import references_agree, unit_of

OPERATION = "encoder_reference_points"


def unpadded(subject: Subject) -> Iterator[Case]:
    for shapes in (PYRAMID, ((3, 5), (1, 4))):
        yield reference_case(subject, shapes, torch.ones(2, len(shapes), 2), "no padding")


@covers("SEL-8", cases=unpadded)
def test_centres_of_cells(subject: Subject, case: Case) -> None:
    """Without padding a cell refers to its own centre in every level."""
    references_agree(subject, case)


def one_ratio_for_all_levels(subject: Subject) -> Iterator[Case]:
    yield reference_case(subject, PYRAMID, unlike_ratios(subject, 2, 1).expand(2, 3, 2), "equal ratios")
    yield from padded_pyramids(subject)


@covers("SEL-9", cases=one_ratio_for_all_levels)
def test_relative_to_the_image(subject: Subject, case: Case) -> None:
    """A cell refers to its own centre in its own level, whatever the ratios."""
    output = forward(subject, case).detach().cpu().double()
    level = levels_of(case)
    unit = unit_of(subject)
    own = output[:, torch.arange(len(level)), level]
    centres = centres_of(case).expand_as(own)
    subject.compare("output in the cell's own level", own, centres, 8 * unit * centres)
    references_agree(subject, case)


@covers("SEL-10", cases=lambda subject: [*padded_pyramids(subject), *many_pyramids(subject)])
def test_seen_in_each_level(subject: Subject, case: Case) -> None:
    """The references of a cell in two levels are as the ratios of these levels."""
    output = forward(subject, case).detach().cpu().double()
    ratios = case["valid_ratios"].double()
    unit = unit_of(subject)
    for level in range(ratios.shape[1]):
        there = output[:, :, 0] * (ratios[:, level] / ratios[:, 0])[:, None]
        subject.compare(f"output in level {level}", output[:, :, level], there, 16 * unit * there.abs())
    references_agree(subject, case)


@covers("SEL-11", cases=unpadded)
def test_x_before_y(subject: Subject, case: Case) -> None:
    """In a row of the first level x grows and y does not change."""
    height, width = case["spatial_shapes"][0].tolist()
    cells = forward(subject, case).detach()[:, : height * width, 0].reshape(-1, height, width, 2)
    steps = cells.diff(dim=2)
    grows, stays = bool((steps[..., 0] > 0).all()), bool((steps[..., 1] == 0).all())
    expect(grows and stays, "the first number does not grow along a row, or the second changes", where="output")
    references_agree(subject, case)


def an_empty_level(subject: Subject) -> Iterator[Case]:
    yield from unpadded(subject)
    for shapes in (((2, 3), (0, 4), (1, 2)), ((3, 0), (2, 5))):
        yield reference_case(subject, shapes, unlike_ratios(subject, 2, len(shapes)), "an empty level")


@covers("SEL-12", cases=an_empty_level)
def test_order_of_the_cells(subject: Subject, case: Case) -> None:
    references_agree(subject, case)


def much_padding(subject: Subject) -> Iterator[Case]:
    yield reference_case(subject, PYRAMID, 0.4 * unlike_ratios(subject, 2, 3), "much padding")
    yield reference_case(subject, PYRAMID, 0.03 * unlike_ratios(subject, 2, 3), "a strip beside wide images")


@covers("SEL-13", cases=much_padding)
def test_padding_has_references(subject: Subject, case: Case) -> None:
    references_agree(subject, case)


@covers("SEL-14", cases=drawn_pyramids, share=0.5)
def test_accuracy(subject: Subject, case: Case) -> None:
    references_agree(subject, case, precise=True)


@covers(
    "SEL-14", cases=lambda subject: [reference_case(subject, ((2, 300),), unlike_ratios(subject, 2, 1), "a long row")]
)
def test_accuracy_at_scale(subject: Subject, case: Case) -> None:
    references_agree(subject, case, precise=True)


@covers("SEL-15", cases=padded_pyramids, once=True)
def test_as_many_ratios_as_levels(subject: Subject, case: Case) -> None:
    ratios = case["valid_ratios"]
    raises(subject, case.having(valid_ratios=ratios[:, :-1]), "there are fewer ratios than levels")
    raises(
        subject, case.having(valid_ratios=torch.cat((ratios, ratios[:, :1]), 1)), "there are more ratios than levels"
    )


def levels_of(case: Case) -> Tensor:
    """The level of each cell."""
    sizes = case["spatial_shapes"].prod(-1)
    return torch.arange(len(sizes)).repeat_interleave(sizes)


def centres_of(case: Case) -> Tensor:
    """The centre of each cell in its own padded map, (cell, 2)."""
    centres = []
    for height, width in case["spatial_shapes"].tolist():
        y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
        centres.append(torch.stack((x.double() / width, y.double() / height), -1).flatten(0, 1))
    return torch.cat(centres)
