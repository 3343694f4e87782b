"""Output of `ms_deform_attn`: its form, which axis is which, what must not mix. Clauses: MSDA-1 to MSDA-10."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from detr_conformance.harness.case import Case
from detr_conformance.harness.fill import Filler
from detr_conformance.harness.mismatch import expect, not_a_tensor
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.topics.deformable_attention.cases.core import (
    Structure,
    case_at,
    drawn_cases,
    inside,
    pixels_of,
    structure_of,
)
from detr_conformance.topics.deformable_attention.cases.dyadic import (
    SQUARE,
    WIDE,
    cell_centres,
    cell_codes,
    dyadic_case,
    gather,
)
from detr_conformance.topics.deformable_attention.checks.agreement import (
    agrees,
    check_output,
    exact_output,
    rounding_of,
)
from detr_conformance.topics.deformable_attention.checks.oracle import expectations

OPERATION = "ms_deform_attn"


def one_weight(s: Structure) -> Tensor:
    """Weight one on the first sample of each head, zero elsewhere."""
    weights = torch.zeros(s.samples, dtype=torch.float64)
    weights[..., 0, 0] = 1
    return weights


@covers("MSDA-1", cases=lambda subject: drawn_cases(subject, inside), share=0.3, plain=agrees)
def test_output_form(subject: Subject, case: Case) -> None:
    s = structure_of(case)
    output = subject.forward(case)
    check_form_of(subject, output, s)
    check_output(subject, output, case)
    if subject.device == "cuda" and torch.cuda.device_count() > 1:
        last = torch.cuda.device_count() - 1
        arguments = {name: tensor.to(f"cuda:{last}") for name, tensor in subject.arguments(case).items()}
        output = subject.call(arguments)
        expect(output.device.index == last, f"the output lies on {output.device}, its arguments on cuda:{last}")
        check_output(subject, output, case)


def check_form_of(subject: Subject, output: Tensor, s: Structure) -> None:
    expect(isinstance(output, Tensor), f"the output is {not_a_tensor(output)}")
    shape, wanted = tuple(output.shape), (s.batch, s.queries, s.heads * s.channels)
    expect(
        shape == wanted,
        f"the output has shape {shape}, expected {wanted}",
        got=str(shape),
        expected=str(wanted),
        kind="form",
    )
    expect(
        output.dtype == subject.torch_dtype,
        f"the output has dtype {output.dtype}, value has {subject.torch_dtype}",
        got=str(output.dtype),
        expected=str(subject.torch_dtype),
        kind="form",
    )
    same = output.device.type == torch.device(subject.device).type
    expect(same, f"the output lies on {output.device}", kind="form")


def channel_codes(subject: Subject) -> Iterator[Case]:
    for heads, channels in ((3, 5), (2, 8), (4, 1), (1, 6)):
        s = Structure(WIDE.levels, heads=heads, channels=channels)
        code = 1 + torch.arange(heads * channels, dtype=torch.float64).view(heads, channels)
        value = code.expand(s.batch, s.cells, heads, channels)
        case = gather(subject, s, value=value, note="channel codes")
        yield case.having(attention_weights=one_weight(s).to(subject.torch_dtype))


@covers("MSDA-2", cases=channel_codes)
def test_channel_order(subject: Subject, case: Case) -> None:
    s = structure_of(case)
    code = 1 + torch.arange(s.heads * s.channels, dtype=torch.float64)
    subject.compare_exactly("output", subject.forward(case), code.expand(s.batch, s.queries, -1))


@covers(
    "MSDA-3",
    cases=lambda subject: [gather(subject, SQUARE, value=cell_codes(SQUARE), note="cell codes, square")],
)
def test_row_major(subject: Subject, case: Case) -> None:
    exact_output(subject, case.having(attention_weights=one_weight(SQUARE).to(subject.torch_dtype)))


def oblong(subject: Subject) -> Iterator[Case]:
    for levels in (((2, 8),), ((8, 2),), ((4, 8), (8, 4)), ((1, 8), (8, 1), (2, 4))):
        s = Structure(levels, queries=20)
        yield gather(subject, s, value=cell_codes(s), note="cell codes, oblong")


def odd_maps(subject: Subject) -> Iterator[Case]:
    """Sides and level starts that are multiples of nothing."""
    for levels in (((7, 7),), ((5, 7), (3, 3), (1, 5), (3, 2))):
        yield case_at(subject, Structure(levels, queries=20), cell_centres, note="odd maps")


@covers("MSDA-3", "MSDA-5", cases=odd_maps)
def test_maps_without_padding(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("MSDA-4", cases=oblong)
def test_heights_first(subject: Subject, case: Case) -> None:
    s = structure_of(case)
    case = case.having(attention_weights=torch.ones(s.samples, dtype=subject.torch_dtype) / 4)
    exact_output(subject, case)


def one_live_level(subject: Subject) -> Iterator[Case]:
    """All levels but one hold another number, which shows wherever it is read, and the samples of these lie outside."""
    for live in range(3):
        case = dyadic_case(subject, WIDE, live, note=f"samples on level {live} alone")
        value, locations = case["value"].clone(), case["sampling_locations"].clone()
        for level, start in enumerate(case["level_start_index"].tolist()):
            if level != live:
                height, width = WIDE.levels[level]
                value[:, start : start + height * width] = 96
                locations[..., level, :, :] = 2.0
        yield case.having(value=value, sampling_locations=locations)


@covers("MSDA-5", cases=one_live_level)
def test_levels_are_separate(subject: Subject, case: Case) -> None:
    exact_output(subject, case)


def ramps(subject: Subject) -> Iterator[Case]:
    """Channel 0 holds the column, channel 1 the row of its cell."""
    s = Structure(((4, 8),), heads=2, channels=2, queries=30, points=1)
    row, column = torch.meshgrid(torch.arange(4.0), torch.arange(8.0), indexing="ij")
    ramp = torch.stack((column, row), -1).reshape(1, 32, 1, 2).expand(2, 32, 2, 2).double()

    def quarters(fill: Filler, s: Structure) -> Tensor:
        return torch.floor(fill.uniform(0, 1, *s.samples, 2) * (s.sizes() - 1) * 4) / 4

    yield dyadic_case(
        subject, s, pixels=quarters, value=lambda f, s: ramp, weights=lambda f, s: one_weight(s), note="ramps"
    )


@covers("MSDA-6", cases=ramps)
def test_x_before_y(subject: Subject, case: Case) -> None:
    pixels = pixels_of(case)[:, :, :, 0, 0]  # (B, Q, M, 2): on these ramps a sample returns its coordinates
    subject.compare_exactly("output", subject.forward(case), pixels.flatten(2))


def one_hot_samples(subject: Subject) -> Iterator[Case]:
    """Query q gives weight one to sample q of the L * P, and nothing to the others."""
    for levels, points in ((((4, 8), (8, 2), (2, 2)), 2), (((4, 8), (8, 2)), 2), (((8, 4), (2, 8)), 4)):
        s = Structure(levels, queries=len(levels) * points, points=points)
        weights = torch.eye(s.queries, dtype=torch.float64).view(s.queries, 1, len(levels), points)
        case = gather(subject, s, value=cell_codes(s), note="one-hot weights")
        yield case.having(attention_weights=weights.expand(s.samples).to(subject.torch_dtype).contiguous())


@covers("MSDA-7", cases=one_hot_samples)
def test_levels_before_points(subject: Subject, case: Case) -> None:
    exact_output(subject, case)


def undisturbed_rows(subject: Subject, case: Case, arguments: dict[str, Tensor], keep: Tensor, what: str) -> None:
    """Compares only the rows of the (B, Q, M, D) output that the disturbance must not reach."""
    s = structure_of(case)
    output = subject.forward(case.having(**arguments)).view(s.batch, s.queries, s.heads, s.channels)
    right = expectations(case, rounding_of(subject), backward=False)["output"]
    rows = keep.expand(s.batch, s.queries, s.heads)
    expected, limit = right.expected.view(output.shape), right.limit.view(output.shape)
    subject.compare(f"output of the other {what}", output[rows], expected[rows], limit[rows])


def poisoned(case: Case, select: tuple[slice | int, ...], names: tuple[str, ...]) -> dict[str, Tensor]:
    """The named arguments with one slice overwritten by NaN."""
    changed = {}
    for name in names:
        changed[name] = case[name].clone()
        changed[name][select] = torch.nan
    return changed


@covers("MSDA-8", cases=lambda subject: drawn_cases(subject, inside), share=0.6)
def test_heads_are_separate(subject: Subject, case: Case) -> None:
    s = structure_of(case)
    for head in {0, s.heads - 1}:
        changes = poisoned(case, (slice(None), slice(None), head), ("value", "attention_weights"))
        keep = (torch.arange(s.heads) != head)[None, None]
        undisturbed_rows(subject, case, changes, keep, "heads")


@covers("MSDA-9", cases=lambda subject: drawn_cases(subject, inside), share=0.6)
def test_images_are_separate(subject: Subject, case: Case) -> None:
    s = structure_of(case)
    agrees(subject, case)
    for image in {0, s.batch - 1}:
        changes = poisoned(case, (image,), ("value", "attention_weights"))
        keep = (torch.arange(s.batch) != image)[:, None, None]
        undisturbed_rows(subject, case, changes, keep, "images")


def many_queries(subject: Subject) -> Iterator[Case]:
    for queries in (2, 33, 130):
        s = Structure(queries=queries, batch=2, heads=2, channels=4)
        yield case_at(subject, s, inside, note="queries")


@covers("MSDA-10", cases=many_queries)
def test_queries_are_separate(subject: Subject, case: Case) -> None:
    s = structure_of(case)
    for query in {0, s.queries // 2, s.queries - 1}:
        changes = poisoned(case, (slice(None), query), ("attention_weights",))
        keep = (torch.arange(s.queries) != query)[None, :, None]
        undisturbed_rows(subject, case, changes, keep, "queries")
    order = torch.arange(s.queries).flip(0)
    exchanged = case.having(
        sampling_locations=case["sampling_locations"][:, order].contiguous(),
        attention_weights=case["attention_weights"][:, order].contiguous(),
    )
    check_output(subject, subject.forward(exchanged), exchanged)
