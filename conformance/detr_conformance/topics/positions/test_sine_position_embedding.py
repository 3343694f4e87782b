"""The sine embedding of feature maps (chapter 8, POS-1 to POS-16)."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from detr_conformance.harness.block import forward, raises
from detr_conformance.harness.case import Case
from detr_conformance.harness.fill import Filler
from detr_conformance.harness.mismatch import expect
from detr_conformance.harness.subject import NotProvided, Raised, Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.topics.positions.cases import (
    EXTENTS,
    drawn_maps,
    fixed_offset,
    padded_maps,
    rectangles,
    sine_case,
    whole_maps,
    with_holes,
    with_option,
)
from detr_conformance.topics.positions.checks import sine_agrees, sine_right

OPERATION = "sine_position_embedding"


# -- channels -------------------------------------------------------------------------------------------------


@covers("POS-1", cases=whole_maps)
def test_rows_before_columns(subject: Subject, case: Case) -> None:
    """Without padding the first half is the same in every column, the second in every row, and neither constant."""
    output = forward(subject, case).detach().cpu().double()
    limit = 2 * sine_right(subject, case).limit
    for name, half, slack, other in zip(
        ("rows", "columns"), output.chunk(2, 1), limit.chunk(2, 1), (3, 2), strict=True
    ):
        subject.compare(f"channels of {name}", half, half.narrow(other, 0, 1).expand_as(half), slack)
        largest = (half - half.narrow(5 - other, 0, 1)).abs().max().item()
        expect(largest > 0.5, f"the channels of {name} do not depend on {name}", where="output", got=f"{largest:.3g}")


@covers("POS-2", cases=whole_maps)
def test_interleaved(subject: Subject, case: Case) -> None:
    """The squares of a pair sum up to one, and in the longest wave the sine is near 0, the cosine near 1."""
    output = forward(subject, case).detach().cpu().double()
    limit = sine_right(subject, case).limit
    sine, cosine, slack = output[:, 0::2], output[:, 1::2], limit[:, 0::2] + limit[:, 1::2]
    subject.compare("sin ** 2 + cos ** 2", sine**2 + cosine**2, torch.ones_like(sine), 2 * slack + slack**2)
    pairs = sine.shape[1] // 2
    for axis in (0, 1):
        last = axis * pairs + pairs - 1
        smallest, largest = sine[:, last].abs().max().item(), cosine[:, last].min().item()
        expect(
            smallest < 0.1 and largest > 0.9,
            f"in the longest wave channel {2 * last} reaches {smallest:.3g} and channel {2 * last + 1} falls to "
            f"{largest:.3g}; a sine and a cosine would be near 0 and 1",
            where=f"output[:, {2 * last}:{2 * last + 2}]",
        )


def wavelengths(subject: Subject) -> Iterator[Case]:
    mask = rectangles(4, 7, (4, 7))
    for num_pos_feats, temperature in ((6, 10000.0), (10, 20.0), (64, 300.0)):
        yield sine_case(
            subject, mask, f"temperature {temperature:g}", num_pos_feats=num_pos_feats, temperature=temperature
        )


@covers("POS-3", cases=wavelengths)
def test_wavelengths(subject: Subject, case: Case) -> None:
    sine_agrees(subject, case)


# -- counts ---------------------------------------------------------------------------------------------------


@covers("POS-4", cases=lambda subject: [*whole_maps(subject), *padded_maps(subject)])
def test_counted_from_one(subject: Subject, case: Case) -> None:
    sine_agrees(subject, case)


@covers("POS-5", cases=padded_maps)
def test_true_is_padding(subject: Subject, case: Case) -> None:
    sine_agrees(subject, case)


def holes(subject: Subject) -> Iterator[Case]:
    fill = Filler(subject.dtype, subject.settings.seed, "holes")
    yield sine_case(subject, with_holes(fill, 2, 6, 9), "holes")
    yield sine_case(subject, rectangles(5, 7, *EXTENTS).flip(1, 2), "images in the lower right corner")


@covers("POS-6", cases=holes)
def test_every_row_and_column_by_itself(subject: Subject, case: Case) -> None:
    sine_agrees(subject, case)


@covers("POS-7", cases=padded_maps)
def test_valid_extent(subject: Subject, case: Case) -> None:
    """On its own cells an image has the embedding that it has alone, on a map that it fills."""
    output = forward(subject, case)
    for image, mask in enumerate(case["mask"]):
        rows, columns = int((~mask[:, 0]).sum()), int((~mask[0]).sum())
        alone = sine_right(subject, case.having(mask=mask[None, :rows, :columns]))
        found = output[image : image + 1, :, :rows, :columns]
        subject.compare(f"output of image {image}", found, alone.expected, alone.limit)


def shifted(subject: Subject) -> Iterator[Case]:
    fixed = fixed_offset(subject)
    if fixed == 0:
        raise NotProvided("the offset is always 0")
    mask = rectangles(5, 7, *EXTENTS)
    for offset in (-0.5, 0.25) if fixed is None else (fixed,):
        yield sine_case(subject, mask, f"offset {offset}", offset=offset)


@covers("POS-8", cases=shifted)
def test_offset(subject: Subject, case: Case) -> None:
    sine_agrees(subject, case)


def single_cells(subject: Subject) -> Iterator[Case]:
    yield sine_case(subject, rectangles(4, 5, (1, 4), (3, 1), (1, 1)), "extents of one cell", temperature=20.0)


@covers("POS-9", cases=single_cells, dtypes=("float64", "float32"))
def test_epsilon(subject: Subject, case: Case) -> None:
    """The only cell of a row lies at 2 pi / (1 + 1e-6), whose sine is -6.3e-6."""
    sine_agrees(subject, case, precise=True)


def nothing_valid(subject: Subject) -> Iterator[Case]:
    mask = rectangles(4, 6, (2, 3), (0, 0), (4, 5))
    for offset in (0.0, -0.5):
        yield sine_case(subject, mask, f"wholly padded, offset {offset}", offset=offset)


@covers("POS-10", cases=nothing_valid)
def test_nothing_valid(subject: Subject, case: Case) -> None:
    output = forward(subject, case)
    finite, largest = bool(output.isfinite().all()), output.detach().abs().max().item()
    expect(finite, "the embedding of a wholly padded row or column is not finite", where="output", expected="finite")
    expect(largest <= 1, f"a channel is {largest:.6g}", where="output", expected="within [-1, 1]", got=f"{largest:.6g}")
    right = sine_right(subject, case)
    subject.compare("output", output, right.expected, right.limit)


@covers("POS-11", cases=padded_maps)
def test_padding_repeats_the_last_count(subject: Subject, case: Case) -> None:
    """On its last valid row and beyond an image has the same channels of rows, and likewise for columns."""
    output = forward(subject, case).detach().cpu().double()
    limit = 2 * sine_right(subject, case).limit
    feats = output.shape[1] // 2
    for image, mask in enumerate(case["mask"]):
        rows, columns = int((~mask[:, 0]).sum()), int((~mask[0]).sum())
        below, right = output[image, :feats, rows - 1 :, :columns], output[image, feats:, :rows, columns - 1 :]
        slack = limit[image, :feats, rows - 1 :, :columns], limit[image, feats:, :rows, columns - 1 :]
        subject.compare(f"rows of image {image} in padding", below, below[:, :1].expand_as(below), slack[0])
        subject.compare(f"columns of image {image} in padding", right, right[..., :1].expand_as(right), slack[1])


def bare_counts(subject: Subject) -> Iterator[Case]:
    mask = rectangles(5, 7, *EXTENTS)
    for offset in (0.0, -0.5):
        yield sine_case(subject, mask, f"counts, offset {offset}", offset=offset, normalize=False)


@covers("POS-12", cases=bare_counts)
def test_without_normalisation(subject: Subject, case: Case) -> None:
    try:
        sine_agrees(subject, case)
    except Raised as raised:
        if raised.got == "NotImplementedError":
            raise NotProvided("positions are always normalised") from raised
        raise


def long_maps(subject: Subject) -> Iterator[Case]:
    for length in (150, 300, 2100):
        along_columns = rectangles(1, length, (1, length - 10), (1, length))
        yield sine_case(subject, along_columns, f"{length} columns", num_pos_feats=4)
    yield sine_case(subject, rectangles(600, 1, (600, 1)), "600 rows", num_pos_feats=2)


@covers("POS-13", cases=long_maps)
def test_long_maps(subject: Subject, case: Case) -> None:
    sine_agrees(subject, case)


# -- numbers and errors ---------------------------------------------------------------------------------------


@covers("POS-14", cases=drawn_maps, share=0.5)
def test_accuracy(subject: Subject, case: Case) -> None:
    sine_agrees(subject, case, precise=True)


@covers(
    "POS-14",
    cases=lambda subject: [
        sine_case(subject, rectangles(25, 34, (25, 30), (19, 34)), "as in a detector", num_pos_feats=128, offset=-0.5)
    ],
)
def test_accuracy_at_scale(subject: Subject, case: Case) -> None:
    sine_agrees(subject, case, precise=True)


@covers("POS-15", cases=lambda subject: [next(padded_maps(subject))], once=True)
def test_boolean_masks_only(subject: Subject, case: Case) -> None:
    for dtype in (torch.uint8, torch.int64, torch.float32):
        raises(subject, case.having(mask=case["mask"].to(dtype)), f"the mask is {dtype}")


@covers("POS-16", cases=lambda subject: [next(whole_maps(subject))], once=True)
def test_even_number_of_channels(subject: Subject, case: Case) -> None:
    raises(subject, with_option(case, "num_pos_feats", 5), "num_pos_feats is 5")
