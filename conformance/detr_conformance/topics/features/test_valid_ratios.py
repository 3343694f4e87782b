"""Which share of a padded level belongs to the image (chapter 11, SEL-1 to SEL-7)."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from detr_conformance.harness.block import forward, raises
from detr_conformance.harness.case import Case
from detr_conformance.harness.fill import Filler
from detr_conformance.harness.mismatch import require
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.topics.features.cases import drawn_levels, padded_levels, ratio_case
from detr_conformance.topics.features.checks import ratios_agree
from detr_conformance.topics.positions.cases import rectangles

OPERATION = "valid_ratios"


def padded_on_one_side(subject: Subject) -> Iterator[Case]:
    yield ratio_case(subject, rectangles(5, 7, (5, 3), (5, 6)), "padded on the right")
    yield ratio_case(subject, rectangles(5, 7, (2, 7), (4, 7)), "padded at the bottom")


@covers("SEL-1", cases=padded_on_one_side)
def test_width_before_height(subject: Subject, case: Case) -> None:
    """The ratio of the axis that is not padded is 1, that of the other below."""
    output = forward(subject, case).detach().cpu()
    whole = 1 if case.note == "padded on the right" else 0
    subject.compare_exactly(f"output[:, {whole}]", output[:, whole], torch.ones(len(output)))
    ratios_agree(subject, case)


def many_images(subject: Subject) -> Iterator[Case]:
    yield from padded_levels(subject)
    extents = [(1 + image % 3, 1 + image % 5) for image in range(70)]
    yield ratio_case(subject, rectangles(3, 5, *extents), "70 images")


@covers("SEL-2", cases=many_images)
def test_share_of_the_map(subject: Subject, case: Case) -> None:
    ratios_agree(subject, case)


def unlike_rows(subject: Subject) -> Iterator[Case]:
    """Other rows and columns hold more valid cells than the first, or fewer."""
    mask = torch.zeros(2, 5, 7, dtype=torch.bool)
    mask[0, 0, 3:], mask[0, 2:, 0] = True, True
    mask[1, 1:, 2:] = True
    yield ratio_case(subject, mask, "images that are no rectangles")
    fill = Filler(subject.dtype, subject.settings.seed, "unlike rows")
    mask = fill.chance(0.4, 3, 6, 8)
    mask[:, 0, 0] = False
    rows, columns = (~mask).sum(1), (~mask).sum(2)
    require((rows != rows[:, :1]).any() and (columns != columns[:, :1]).any(), "rows and columns with unlike counts")
    yield ratio_case(subject, mask, "holes")


@covers("SEL-3", cases=unlike_rows)
def test_first_row_first_column(subject: Subject, case: Case) -> None:
    ratios_agree(subject, case)


def more_valid_than_padded(subject: Subject) -> Iterator[Case]:
    yield ratio_case(subject, rectangles(5, 7, (4, 6), (3, 5)), "little padding")


@covers("SEL-4", cases=more_valid_than_padded)
def test_true_is_padding(subject: Subject, case: Case) -> None:
    ratios_agree(subject, case)


def nothing_in_front(subject: Subject) -> Iterator[Case]:
    """No cell of the first row, of the first column, or at all."""
    for rows, columns in ((1, 0), (0, 1), (5, 7)):
        mask = rectangles(5, 7, (5, 7), (3, 4))
        mask[1, :rows] = True
        mask[1, :, :columns] = True
        yield ratio_case(subject, rectangles(5, 7, (5, 7), (3, 4)), f"{rows}, {columns}").having(mask_l=mask)


@covers("SEL-5", cases=nothing_in_front, once=True)
def test_positive_ratios(subject: Subject, case: Case) -> None:
    raises(subject, case, "an image has no valid cell in its first row or column")


@covers("SEL-6", cases=lambda subject: [next(padded_levels(subject))], once=True)
def test_boolean_masks_only(subject: Subject, case: Case) -> None:
    for dtype in (torch.uint8, torch.int64, torch.float32):
        raises(subject, case.having(mask_l=case["mask_l"].to(dtype)), f"the mask is {dtype}")


def long_levels(subject: Subject) -> Iterator[Case]:
    """Counts that half precision cannot hold."""
    yield ratio_case(subject, rectangles(2, 2303, (1, 2065), (2, 315)), "long rows")
    yield ratio_case(subject, rectangles(389, 3, (257, 2), (387, 3)), "long columns")


@covers("SEL-7", cases=long_levels)
def test_long_levels(subject: Subject, case: Case) -> None:
    ratios_agree(subject, case, precise=True)


@covers("SEL-7", cases=drawn_levels, share=0.5)
def test_accuracy(subject: Subject, case: Case) -> None:
    ratios_agree(subject, case, precise=True)
