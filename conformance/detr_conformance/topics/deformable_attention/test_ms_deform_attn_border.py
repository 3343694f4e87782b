"""Output of `ms_deform_attn`: at the border, outside, which cells are read at all. Clauses: MSDA-14 to MSDA-18."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from detr_conformance.harness.case import Case
from detr_conformance.harness.fill import Filler
from detr_conformance.harness.mismatch import expect, require
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.topics.deformable_attention.cases.core import (
    Structure,
    border,
    case_at,
    drawn_cases,
    everywhere,
    inside,
    make_case,
    outside,
    pixels_of,
    structure_of,
)
from detr_conformance.topics.deformable_attention.cases.dyadic import SQUARE, WIDE, cell_centres, dyadic_case, gather
from detr_conformance.topics.deformable_attention.checks.agreement import (
    agrees,
    check_output,
    exact_output,
    exactly_zero,
    ordinary,
    touched_cells,
)

OPERATION = "ms_deform_attn"


@covers("MSDA-14", cases=lambda subject: drawn_cases(subject, outside, side=12))
def test_outside_is_exactly_zero(subject: Subject, case: Case) -> None:
    pixels, sizes = pixels_of(case), structure_of(case).sizes()
    require(((pixels <= -1) | (pixels >= sizes)).any(-1).all(), "a sample is in range")
    exactly_zero(subject, "output", subject.forward(case))


def on_the_boundary(subject: Subject) -> Iterator[Case]:
    """x or y exactly -1 or exactly the size: the first coordinates that do not count."""
    s = Structure(((4, 8), (8, 2)), queries=20)

    def at_ends(fill: Filler, s: Structure) -> Tensor:
        ends = torch.where(fill.chance(0.5, *s.samples, 2), torch.tensor(-1.0, dtype=torch.float64), s.sizes())
        use = fill.chance(0.5, *s.samples, 2)
        use[..., 0] |= ~use[..., 1]
        return torch.where(use, ends, cell_centres(fill, s))

    yield dyadic_case(subject, s, pixels=at_ends, note="on the boundary of the range")


@covers("MSDA-14", cases=on_the_boundary)
def test_the_boundary_is_outside(subject: Subject, case: Case) -> None:
    exactly_zero(subject, "output", subject.forward(case))


def long_and_flat(subject: Subject) -> Iterator[Case]:
    """Coordinates that one axis' range would refuse and the other's admits."""
    for levels in (((2, 16),), ((16, 2),)):
        yield dyadic_case(subject, Structure(levels, queries=30), note="each axis has its own range")


@covers("MSDA-14", cases=long_and_flat)
def test_each_axis_has_its_own_range(subject: Subject, case: Case) -> None:
    exact_output(subject, case)


def corners_of_the_map(subject: Subject) -> Iterator[Case]:
    """Locations (0, 0), (1, 0), (0, 1), (1, 1): three of four corners are missing."""
    s = Structure(((4, 8), (2, 2)), queries=4, points=1)

    def at_corners(fill: Filler, s: Structure) -> Tensor:
        unit = torch.tensor([(0, 0), (1, 0), (0, 1), (1, 1)], dtype=torch.float64)[None, :, None, None, None]
        return (unit * s.sizes() - 0.5).expand(*s.samples, 2)

    yield dyadic_case(subject, s, pixels=at_corners, note="corners of the map")
    for seed in range(6):
        yield case_at(subject, Structure(((5, 7), (1, 6), (8, 1)), queries=20), border, seed, note="border")


@covers("MSDA-15", cases=corners_of_the_map)
def test_zeros_beyond_the_border(subject: Subject, case: Case) -> None:
    agrees(subject, case)
    if case.note == "corners of the map":
        exact_output(subject, case)


def far_away(subject: Subject) -> Iterator[Case]:
    """Locations +-2^k, in x, in y, and in both, as far as 4 * 2^k * W can still be represented."""
    s = Structure(((4, 8), (8, 2)), batch=1, queries=1, heads=1, points=1)
    half = subject.variant("coordinates") == "half"
    computed = torch.finfo(subject.torch_dtype if half else torch.promote_types(subject.torch_dtype, torch.float32))
    largest = min(math.log2(torch.finfo(subject.torch_dtype).max), math.log2(computed.max) - 5)
    powers = range(2, min(int(largest), 122) + 1)
    queries = [(sign * 2.0**k, axis) for k in powers for sign in (1, -1) for axis in ("x", "y", "xy")]
    s = Structure(s.levels, 1, len(queries), 1, 3, 2)
    locations = torch.full((*s.samples, 2), 0.5, dtype=torch.float64)
    for query, (far, axis) in enumerate(queries):
        if "x" in axis:
            locations[:, query, ..., 0] = far
        if "y" in axis:
            locations[:, query, ..., 1] = far
    yield make_case(Filler(subject.dtype, "far"), s, locations=locations, note="far away")
    near = locations.clone()
    near[..., 1, :] = 0.5
    yield make_case(Filler(subject.dtype, "far"), s, locations=near, note="far away, beside a sample in range")


@covers("MSDA-16", cases=far_away, plain=ordinary)
def test_any_finite_location(subject: Subject, case: Case) -> None:
    output = subject.forward(case)
    check_output(subject, output, case)
    if case.note == "far away":
        exactly_zero(subject, "output", output)


@covers("MSDA-17", cases=lambda subject: drawn_cases(subject, everywhere, side=12))
def test_untouched_cells_do_not_matter(subject: Subject, case: Case) -> None:
    touched = touched_cells(case)
    clean = torch.where(touched[..., None], case["value"], torch.zeros(()).to(case["value"].dtype))
    for poison in (torch.nan, torch.inf):
        dirty = clean.masked_fill(~touched[..., None], poison)
        check_output(subject, subject.forward(case.having(value=dirty)), case.having(value=clean))


def far_corner(fill: Filler, s: Structure) -> Tensor:
    """Between the last cell and the lower right border, or beyond it."""
    return s.sizes() - 1 + fill.uniform(0.1, 2.0, *s.samples, 2)


@covers("MSDA-17", cases=lambda subject: [case_at(subject, Structure(((4, 8),), points=2), far_corner)])
def test_missing_corners_read_nothing(subject: Subject, case: Case) -> None:
    """Every cell but those of the far corner is NaN, the first one of all among them."""
    test_untouched_cells_do_not_matter.suite_test.property(subject, case)  # type: ignore[attr-defined]


@covers("MSDA-17", cases=lambda subject: [gather(subject, s, note="cell centres") for s in (SQUARE, WIDE)])
def test_only_four_corners_are_touched(subject: Subject, case: Case) -> None:
    """On exact cell centres the corners are (floor, floor + 1); the left and upper neighbours are not among them."""
    touched = touched_cells(case, margin=0.0)[..., None]
    dirty = case.having(value=case["value"].masked_fill(~touched, torch.nan))
    require((~touched).any(), "every cell is touched")
    exact_output(subject, dirty)


def strong_weights(fill: Filler, s: Structure) -> Tensor:
    return fill.uniform(0.25, 1.0, *s.samples) * torch.where(fill.chance(0.5, *s.samples), 1.0, -1.0)


@covers("MSDA-18", cases=lambda subject: drawn_cases(subject, inside, weights=strong_weights), share=0.6)
def test_touched_non_finite_numbers_show(subject: Subject, case: Case) -> None:
    s = structure_of(case)
    sample = (0, s.queries - 1, s.heads - 1, len(s.levels) - 1, s.points - 1)
    height, width = s.levels[-1]
    x, y = pixels_of(case)[sample].tolist()
    nearest = min(max(round(y), 0), height - 1) * width + min(max(round(x), 0), width - 1)
    cell = int(case["level_start_index"][-1]) + nearest
    channel = s.channels - 1
    column = sample[2] * s.channels + channel
    for poison in (torch.nan, torch.inf, -torch.inf):
        value = case["value"].clone()
        value[0, cell, sample[2], channel] = poison
        output = subject.forward(case.having(value=value))[0, sample[1]]
        shown = output[column].isnan() if poison != poison else ~output[column].isfinite()
        expect(
            bool(shown),
            f"{poison} in a touched cell vanished: output[0, {sample[1]}, {column}] is {output[column].item()}",
            where=f"output[0, {sample[1]}, {column}]",
            expected=str(poison),
            got=str(output[column].item()),
        )
    weights = case["attention_weights"].clone()
    weights[sample] = torch.nan
    output = subject.forward(case.having(attention_weights=weights))[0, sample[1]]
    head = output[sample[2] * s.channels : (sample[2] + 1) * s.channels]
    expect(bool(head.isnan().all()), "a NaN attention weight vanished", where="output", expected="nan")
