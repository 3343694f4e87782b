"""The boxes that the cells of the memory propose (chapter 11, SEL-6 and SEL-16 to SEL-29)."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from detr_conformance.harness.block import agrees, forward, parts, raises, run
from detr_conformance.harness.case import Case
from detr_conformance.harness.mismatch import expect, require
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.topics.positions.cases import rectangles
from detr_conformance.topics.queries.cases.selection import (
    PYRAMID,
    drawn_memories,
    large_levels,
    many_cells,
    many_levels,
    padded_memories,
    proposal_case,
)
from detr_conformance.topics.queries.checks.selection import doubtful, proposals_agree, proposals_right

OPERATION = "encoder_proposals"
NOT_HALF = ("float64", "float32")


@covers("SEL-6", cases=lambda subject: [next(padded_memories(subject))], once=True)
def test_boolean_masks_only(subject: Subject, case: Case) -> None:
    for dtype in (torch.uint8, torch.int64, torch.float32):
        mask = case["memory_key_padding_mask"].to(dtype)
        raises(subject, case.having(memory_key_padding_mask=mask), f"the mask is {dtype}")


# -- boxes ----------------------------------------------------------------------------------------------------


def unlike_rows(subject: Subject) -> Iterator[Case]:
    """Images that are no rectangles: only the first row and column count."""
    case = next(padded_memories(subject))
    mask = case["memory_key_padding_mask"].clone()
    mask[0, 5], mask[0, 7:11], mask[1, 13] = True, True, True
    yield case.having(memory_key_padding_mask=mask)


@covers("SEL-16", cases=lambda subject: [*padded_memories(subject), *unlike_rows(subject)])
def test_centres_relative_to_the_image(subject: Subject, case: Case) -> None:
    proposals_agree(subject, case, memory=False)


@covers("SEL-17", cases=lambda subject: [proposal_case(subject, PYRAMID, (PYRAMID,) * 2, "no padding")])
def test_order_of_the_numbers_and_of_the_cells(subject: Subject, case: Case) -> None:
    """In a row of the first level the first number alone grows."""
    got = parts(case, forward(subject, case).detach())["proposals"]
    steps = got[:, :24].reshape(-1, 4, 6, 4).diff(dim=2)
    expect(bool((steps[..., 0] > 0).all()), "the first number does not grow along a row", where="proposals")
    expect(bool((steps[..., 1:] == 0).all()), "another number than the first changes along a row", where="proposals")
    proposals_agree(subject, case, memory=False)


@covers("SEL-18", cases=lambda subject: [*padded_memories(subject), *many_levels(subject)])
def test_sizes_double(subject: Subject, case: Case) -> None:
    proposals_agree(subject, case, memory=False)


@covers("SEL-19", cases=padded_memories)
def test_before_the_sigmoid(subject: Subject, case: Case) -> None:
    proposals_agree(subject, case, memory=False)


# -- validity -------------------------------------------------------------------------------------------------


@covers("SEL-20", cases=large_levels)
def test_border_cells(subject: Subject, case: Case) -> None:
    _, invalid = proposals_right(case)
    require(invalid[~case["memory_key_padding_mask"]].any(), "cells of an image that are invalid")
    require(doubtful(subject, case).float().mean() < 0.1, "nine cells of ten beyond doubt")
    proposals_agree(subject, case, memory=False)


def fifty_cells(subject: Subject) -> Iterator[Case]:
    """0.5 / 50 is 0.01 in every precision."""
    yield proposal_case(subject, ((2, 50),), (((2, 50),), ((1, 49),)), "50 columns")
    yield proposal_case(subject, ((53, 2),), (((50, 2),), ((53, 1),)), "50 rows")


@covers("SEL-20", cases=fifty_cells, dtypes=NOT_HALF)
def test_strictly_between(subject: Subject, case: Case) -> None:
    """The first of 50 cells, whose centre is 0.01, is invalid; of 49 it is valid."""
    got = parts(case, forward(subject, case).detach().cpu())["proposals"].isinf().all(-1)
    _, invalid = proposals_right(case)
    far = proposals_right(case)[0].amax(-1) < 0.98  # 49.5 / 50 need not be 0.99 bit for bit
    subject.compare_exactly("infinite proposals", (got & far).double(), (invalid & far).double())


@covers("SEL-21", cases=many_levels)
def test_sizes_count_too(subject: Subject, case: Case) -> None:
    got = parts(case, forward(subject, case).detach().cpu())["proposals"]
    _, invalid = proposals_right(case)
    require(invalid[:, -8:].all() and not invalid[0, -14:-8].any(), "a fifth level that is valid, and two that are not")
    there = torch.where(got.isfinite(), 0.0, got.double())
    subject.compare_exactly(
        "proposals, 0 where finite", there, torch.where(invalid[..., None], torch.inf, 0.0).expand_as(there)
    )


@covers("SEL-22", cases=lambda subject: [*padded_memories(subject), *large_levels(subject), *many_levels(subject)])
def test_invalid_is_infinite(subject: Subject, case: Case) -> None:
    """Where a proposal is invalid or padding, all four numbers are +inf."""
    got = parts(case, forward(subject, case).detach().cpu())["proposals"]
    _, invalid = proposals_right(case)
    sure = (invalid & ~doubtful(subject, case))[..., None].expand_as(got)
    there = torch.where(sure, got.double(), torch.inf)
    subject.compare_exactly("proposals where invalid", there, torch.full_like(there, torch.inf))


@covers("SEL-23", cases=lambda subject: [*padded_memories(subject), *large_levels(subject)])
def test_independent_of_padding(subject: Subject, case: Case) -> None:
    """On its own cells an image has the proposals, and the memory, that it has alone on maps that it fills."""
    whole = parts(case, forward(subject, case).detach().cpu())
    for image, mask in enumerate(case["memory_key_padding_mask"]):
        shapes, start = [], 0
        for height, width in case["spatial_shapes"].tolist():
            level = mask[start : start + height * width].view(height, width)
            shapes.append((int((~level[:, 0]).sum()), int((~level[0]).sum())))
            start += height * width
        own = case["memory"][image : image + 1, ~mask]
        alone = proposal_case(subject, shapes, [shapes], "alone", own.shape[-1]).having(memory=own)
        subject.shapes = alone.shapes
        proposals_agree(subject, alone)
        wanted = parts(alone, forward(subject, alone).detach().cpu())
        sure = ~doubtful(subject, alone)
        for name in ("memory", "proposals"):
            slack = 8 * torch.finfo(subject.torch_dtype).eps * (1 + wanted[name].double().abs().nan_to_num(posinf=0))
            slack = slack * 100 if name == "proposals" else slack * 0
            mine = whole[name][image : image + 1, ~mask][sure]
            subject.compare(f"{name} of image {image}", mine, wanted[name][sure].double(), slack[sure])
        subject.shapes = case.shapes


# -- memory ---------------------------------------------------------------------------------------------------


@covers("SEL-24", cases=lambda subject: [*padded_memories(subject), *large_levels(subject), *many_levels(subject)])
def test_memory_is_zero_where_proposals_are_invalid(subject: Subject, case: Case) -> None:
    got = parts(case, forward(subject, case).detach().cpu())["memory"]
    _, invalid = proposals_right(case)
    sure = ~doubtful(subject, case)
    subject.compare_exactly("memory", got[sure], case["memory"].masked_fill(invalid[..., None], 0)[sure])


@covers("SEL-24", cases=padded_memories)
def test_any_number_passes(subject: Subject, case: Case) -> None:
    """NaN, infinities and the largest number at valid cells are what they were."""
    _, invalid = proposals_right(case)
    memory, most = case["memory"].clone(), torch.finfo(subject.torch_dtype).max
    memory[..., 0] = torch.tensor((torch.nan, torch.inf, most, -torch.inf, -most)).repeat(memory.shape[1])[
        : memory.shape[1]
    ]
    got = parts(case, forward(subject, case.having(memory=memory)).detach().cpu())["memory"]
    subject.compare_exactly("memory", got, memory.masked_fill(invalid[..., None], 0))


@covers("SEL-25", cases=lambda subject: [*padded_memories(subject), *many_levels(subject)])
def test_filled_not_multiplied(subject: Subject, case: Case) -> None:
    """NaN and infinities at invalid cells leave no trace."""
    _, invalid = proposals_right(case)
    require(invalid.any(), "cells that are invalid")
    for value in (torch.nan, torch.inf, -torch.inf):
        broken = case.having(memory=case["memory"].masked_fill(invalid[..., None], value))
        proposals_agree(subject, broken)


def nothing_valid(subject: Subject) -> Iterator[Case]:
    shapes = ((3, 4), (2, 3), (1, 2))
    extents = (shapes, [(0, 0)] * 3, ((2, 3), (0, 0), (1, 1)))
    yield proposal_case(subject, shapes, extents, "an image and a level of padding alone")


@covers("SEL-26", cases=nothing_valid)
def test_nothing_valid(subject: Subject, case: Case) -> None:
    proposals_agree(subject, case)


@covers(
    "SEL-27", cases=lambda subject: [*padded_memories(subject), *many_levels(subject)], feature="backward", plain=agrees
)
def test_gradient_of_memory(subject: Subject, case: Case) -> None:
    """What arrives at valid cells goes on; nothing else does, be it NaN or the gradient of a proposal."""
    _, invalid = proposals_right(case)
    incoming = parts(case, case["grad_output"])["memory"]
    expected = incoming.masked_fill(invalid[..., None], 0)
    poisoned = incoming.masked_fill(invalid[..., None], torch.nan)
    rest = case["grad_output"][incoming.numel() :]
    for arriving in (incoming, poisoned):
        given = case.having(grad_output=torch.cat((arriving.flatten(), rest)))
        subject.compare_exactly("grad_memory", subject.gradient("memory", run(subject, given).gradients), expected)


# -- numbers and errors ---------------------------------------------------------------------------------------


@covers("SEL-28", cases=drawn_memories, share=0.5)
def test_accuracy(subject: Subject, case: Case) -> None:
    proposals_agree(subject, case, precise=True)


@covers("SEL-28", cases=lambda subject: [*large_levels(subject), *many_cells(subject), _a_long_row(subject)])
def test_accuracy_at_scale(subject: Subject, case: Case) -> None:
    proposals_agree(subject, case, precise=True)


def _a_long_row(subject: Subject) -> Case:
    return proposal_case(subject, ((2, 160),), (((2, 151),), ((1, 133),)), "a long row", embed=1)


@covers("SEL-29", cases=lambda subject: [next(padded_memories(subject))], once=True)
def test_levels_fill_the_cells(subject: Subject, case: Case) -> None:
    for shapes in (((4, 6), (2, 3)), ((4, 6), (2, 3), (1, 2), (1, 1)), ((4, 6), (2, 3), (1, 3))):
        given = case.having(spatial_shapes=torch.tensor(shapes))
        raises(subject, given, f"the levels {shapes} do not sum up to {case['memory'].shape[1]} cells")
    mask = rectangles(1, case["memory"].shape[1] - 1, (1, 9), (1, 30)).flatten(1)
    raises(subject, case.having(memory_key_padding_mask=mask), "the mask has another shape")
