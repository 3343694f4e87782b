"""Output of `ms_deform_attn`: all weights as given, accuracy. Clauses: MSDA-19 to MSDA-22, MSDA-24, 25 and 52."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from detr_conformance.harness.case import Case
from detr_conformance.harness.fill import Filler
from detr_conformance.harness.mismatch import expect
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import HALF, covers
from detr_conformance.topics.deformable_attention.cases.core import (
    Structure,
    case_at,
    constant,
    drawn_cases,
    everywhere,
    inside,
    make_case,
    signed,
    softmaxed,
    to_locations,
)
from detr_conformance.topics.deformable_attention.cases.dyadic import WIDE, cell_centres, dyadic_case
from detr_conformance.topics.deformable_attention.checks.agreement import (
    agrees,
    check_output,
    exact_output,
    gradients_agree,
)

OPERATION = "ms_deform_attn"

REAL = Structure(levels=((32, 41), (16, 21), (8, 11), (4, 6)), batch=2, queries=21, heads=8, channels=32, points=4)


# -- weights ------------------------------------------------------------------------------------------------


def whole_numbers(low: int, high: int, fill: Filler, s: Structure) -> Tensor:
    return fill.integers(low, high, *s.samples)


def whole_weights(subject: Subject) -> Iterator[Case]:
    """Constant maps under whole weights: the output is value times the sum of the weights."""
    for low, high in ((-3, 3), (0, 0), (1, 1), (2, 5), (-4, -1)):
        yield dyadic_case(
            subject,
            WIDE,
            low,
            pixels=cell_centres,
            weights=partial(whole_numbers, low, high),
            note=f"weights in [{low}, {high}]",
        )


@covers("MSDA-19", cases=whole_weights)
def test_weights_as_given(subject: Subject, case: Case) -> None:
    exact_output(subject, case)


def small_weights(subject: Subject) -> Iterator[Case]:
    """A large value under a small weight beside many small values under large ones, each way round in the levels."""
    s = Structure(((4, 8), (2, 4), (8, 2), (2, 2)), queries=5, points=8, channels=3)
    for power in (10,) if subject.dtype == "float16" else (10, 20):
        for special in range(4):
            for point in (0, 7):
                fill = Filler(subject.dtype, "small weights")
                value = torch.ones(s.batch, s.cells, s.heads, s.channels, dtype=torch.float64)
                start = sum(h * w for h, w in s.levels[:special])
                height, width = s.levels[special]
                value[:, start : start + height * width] = 2.0**power
                weights = torch.ones(s.samples, dtype=torch.float64)
                weights[..., special, :] = 0
                weights[..., special, point] = 2.0**-power
                locations = to_locations(cell_centres(fill, s), s)
                yield make_case(fill, s, locations=locations, weights=weights, value=value, note=f"weight 2^-{power}")


def small_shares(subject: Subject) -> Iterator[Case]:
    """A corner whose share is 2^-16 and whose cell holds 2^16; in float16 2^-14 and 2^14."""
    power = 7 if subject.dtype == "float16" else 8
    s = Structure(((2, 2),), queries=3, points=1)
    fill = Filler(subject.dtype, "small shares")
    value = torch.ones(s.batch, s.cells, s.heads, s.channels, dtype=torch.float64)
    value[:, 3] = 2.0 ** (2 * power)
    locations = to_locations(torch.full((*s.samples, 2), 2.0**-power, dtype=torch.float64), s)
    weights = torch.ones(s.samples, dtype=torch.float64)
    yield make_case(fill, s, locations=locations, weights=weights, value=value, note=f"a share of 2^-{2 * power}")


@covers("MSDA-20", cases=small_shares)
def test_no_corner_is_dropped(subject: Subject, case: Case) -> None:
    exact_output(subject, case)


@covers("MSDA-20", cases=small_weights)
def test_no_sample_is_dropped(subject: Subject, case: Case) -> None:
    exact_output(subject, case)


# -- precision ----------------------------------------------------------------------------------------------


def scaled_values(scale: float) -> object:
    return lambda fill, s: scale * fill.normal(s.batch, s.cells, s.heads, s.channels)


@covers("MSDA-21", cases=lambda subject: drawn_cases(subject), any_call=True)
def test_accuracy(subject: Subject, case: Case) -> None:
    agrees(subject, case, precise=True)


def other_scales(subject: Subject) -> Iterator[Case]:
    for scale in (1e-3, 1e3):
        yield case_at(subject, Structure(), everywhere, scale, value=scaled_values(scale), note=f"values x {scale}")
    yield case_at(subject, REAL, everywhere, weights=softmaxed, note="the sizes of a real layer")


@covers("MSDA-21", cases=other_scales)
def test_accuracy_at_scale(subject: Subject, case: Case) -> None:
    agrees(subject, case, precise=True)


def cancelling(fill: Filler, s: Structure) -> Tensor:
    """Weights whose sum is nearly zero while each is large."""
    weights = fill.uniform(1, 2, *s.samples)
    return weights * torch.where(fill.chance(0.5, *s.samples), 1.0, -1.0)


def around_four(fill: Filler, s: Structure) -> Tensor:
    return 4 + 0.5 * fill.normal(s.batch, s.cells, s.heads, s.channels)


def long_sums(subject: Subject) -> Iterator[Case]:
    s = Structure(((6, 7), (3, 5), (4, 4), (2, 9)), queries=20, points=16, channels=8)
    for seed in range(2):
        yield case_at(subject, s, inside, seed, weights=cancelling, value=around_four, note="long cancelling sums")
    yield case_at(subject, s, inside, weights=cancelling, value=constant, note="long cancelling sums of a constant map")
    for channels, queries in ((16, 70), (33, 9), (64, 65), (128, 8)):  # a fast path may begin at any of these
        wide = Structure(((6, 7), (3, 5)), batch=1, queries=queries, heads=2, channels=channels, points=12)
        yield case_at(subject, wide, inside, weights=cancelling, value=around_four, note="sums of wide heads")


@covers("MSDA-22", cases=long_sums, dtypes=HALF)
def test_sums_are_float32(subject: Subject, case: Case) -> None:
    agrees(subject, case, precise=True)


def near_overflow(subject: Subject) -> Iterator[Case]:
    s = Structure(((4, 8),), queries=2, points=4, channels=3)
    fill = Filler(subject.dtype, "overflow")
    value = torch.full((s.batch, s.cells, s.heads, s.channels), 40000.0, dtype=torch.float64)
    weights = torch.tensor([[1.0, 1, -1, -0.5], [1, 1, 1, -0.5]]).view(1, 2, 1, 1, 4).expand(s.samples)
    locations = to_locations(cell_centres(fill, s), s)
    yield make_case(fill, s, locations=locations, weights=weights, value=value, note="partial sums of 80,000")


@covers("MSDA-24", cases=near_overflow, dtypes=("float16",))
def test_no_intermediate_overflow(subject: Subject, case: Case) -> None:
    exact_output(subject, case)


def dyadic_cases(subject: Subject) -> Iterator[Case]:
    for seed, levels in enumerate((((4, 8), (8, 2)), ((1, 8), (2, 2), (8, 4)), ((8, 8),), ((1, 1), (4, 2)))):
        for points in (1, 3):
            yield dyadic_case(subject, Structure(levels, queries=24, points=points), seed, dense=True)


@covers("MSDA-25", cases=dyadic_cases)
def test_exact_where_exact_is_possible(subject: Subject, case: Case) -> None:
    exact_output(subject, case)


@covers("MSDA-52", cases=lambda subject: drawn_cases(subject, inside, weights=lambda f, s: signed(f, s).abs()))
def test_claimed_means_computed(subject: Subject, case: Case) -> None:
    positive = case.having(value=case["value"].abs() + 1)
    output = subject.forward(positive)
    expect(
        output.dtype == subject.torch_dtype,
        f"the output has dtype {output.dtype}, {subject.dtype} is claimed",
        got=str(output.dtype),
    )
    check_output(subject, output, positive, precise=True)
    if subject.backward:
        gradients_agree(subject, positive, precise=True)
