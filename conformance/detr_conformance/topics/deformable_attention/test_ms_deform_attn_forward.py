"""The output of `ms_deform_attn`: layout, coordinates, range, weights, precision. Clauses: spec chapter 1."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from detr_conformance.harness.case import TORCH_DTYPES, Case
from detr_conformance.harness.fill import Filler
from detr_conformance.harness.mismatch import expect, require
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import HALF, covers
from detr_conformance.topics.deformable_attention.cases.core import (
    Structure,
    border,
    case_at,
    constant,
    drawn_cases,
    everywhere,
    inside,
    make_case,
    outside,
    pixels_of,
    signed,
    softmaxed,
    structure_of,
    to_locations,
)
from detr_conformance.topics.deformable_attention.checks import (
    agrees,
    cell_centres,
    check_output,
    dyadic_case,
    exact_output,
    exactly_zero,
    gradients_agree,
    rounding_of,
    touched_cells,
)
from detr_conformance.topics.deformable_attention.oracle import expectations

OPERATION = "ms_deform_attn"

# Sides are powers of two, so that cell centres and quarter cells are exact in every dtype.
WIDE = Structure(levels=((4, 8), (2, 4), (8, 2)), batch=2, queries=7, heads=3, channels=5, points=2)
SQUARE = Structure(levels=((8, 8),), batch=2, queries=40, heads=2, channels=3, points=2)
REAL = Structure(levels=((32, 41), (16, 21), (8, 11), (4, 6)), batch=2, queries=21, heads=8, channels=32, points=4)


def gather(subject: Subject, s: Structure, *seed: object, value: Tensor | None = None, note: str) -> Case:
    """Every sample on a cell's centre; exact in any dtype."""
    return dyadic_case(
        subject, s, *seed, pixels=cell_centres, value=None if value is None else lambda f, s: value, note=note
    )


def cell_codes(s: Structure) -> Tensor:
    """(B, S, M, D): each cell holds its own number, modulo 251 so that bfloat16 can hold it."""
    codes = torch.arange(s.cells, dtype=torch.float64) % 251
    return codes[None, :, None, None].expand(s.batch, s.cells, s.heads, s.channels)


def one_weight(s: Structure) -> Tensor:
    """Weight one on the first sample of each head, zero elsewhere."""
    weights = torch.zeros(s.samples, dtype=torch.float64)
    weights[..., 0, 0] = 1
    return weights


# -- layout -------------------------------------------------------------------------------------------------


@covers("MSDA-1", cases=lambda subject: drawn_cases(subject, inside), share=0.3)
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
    expect(isinstance(output, Tensor), f"the output is a {type(output).__name__}, not a tensor")
    shape, wanted = tuple(output.shape), (s.batch, s.queries, s.heads * s.channels)
    expect(
        shape == wanted,
        f"the output has shape {shape}, expected {wanted}",
        got=str(shape),
        expected=str(wanted),
    )
    expect(
        output.dtype == subject.torch_dtype,
        f"the output has dtype {output.dtype}, value has {subject.torch_dtype}",
        got=str(output.dtype),
        expected=str(subject.torch_dtype),
    )
    expect(output.device.type == torch.device(subject.device).type, f"the output lies on {output.device}")


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
    """All levels but one hold NaN, and the samples of these lie outside."""
    for live in range(3):
        case = dyadic_case(subject, WIDE, live, note=f"only level {live} is finite")
        value, locations = case["value"].clone(), case["sampling_locations"].clone()
        for level, start in enumerate(case["level_start_index"].tolist()):
            if level != live:
                height, width = WIDE.levels[level]
                value[:, start : start + height * width] = torch.nan
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


# -- coordinates --------------------------------------------------------------------------------------------


@covers("MSDA-11", cases=lambda subject: [gather(subject, s, note="cell centres") for s in (SQUARE, WIDE)])
def test_cell_centres(subject: Subject, case: Case) -> None:
    exact_output(subject, case)


@covers(
    "MSDA-11",
    cases=lambda subject: [case_at(subject, Structure(((5, 7), (3, 9))), cell_centres, note="cell centres, odd maps")],
)
def test_cell_centres_of_odd_maps(subject: Subject, case: Case) -> None:
    agrees(subject, case)


def beside_integers(fill: Filler, s: Structure) -> Tensor:
    """Coordinates a little below and above an integer, by 2^-6 down to 2^-14."""
    step = 2.0 ** -fill.integers(6, 14, *s.samples, 2)
    return cell_centres(fill, s) + torch.where(fill.chance(0.5, *s.samples, 2), step, -step)


def hair_from_integers(subject: Subject) -> Iterator[Case]:
    s = Structure(((4, 8), (8, 2)), queries=24)
    fill = Filler(subject.dtype, "beside integers")
    yield make_case(fill, s, locations=to_locations(beside_integers(fill, s), s), note="beside integers")


@covers("MSDA-12", cases=hair_from_integers)
def test_floor_beside_integers(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("MSDA-12", cases=lambda subject: [dyadic_case(subject, s, note="quarters") for s in (SQUARE, WIDE)])
def test_floor(subject: Subject, case: Case) -> None:
    require(((pixels_of(case) > -1) & (pixels_of(case) < 0)).any(), "no coordinate in (-1, 0)")
    exact_output(subject, case)


def affine_maps(subject: Subject) -> Iterator[Case]:
    for seed in range(4):
        s = Structure(((5, 8), (7, 3)), queries=30, points=3)
        fill = Filler(subject.dtype, subject.settings.seed, "affine", seed)
        maps = []
        for height, width in s.levels:
            i, j = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
            slope = fill.normal(3, s.batch, 1, s.heads, s.channels)
            maps.append(slope[0] + slope[1] * i.reshape(1, -1, 1, 1) + slope[2] * j.reshape(1, -1, 1, 1))
        yield case_at(subject, s, inside, seed, value=torch.cat(maps, 1), note="affine maps")


@covers("MSDA-13", cases=lambda subject: drawn_cases(subject, inside), share=0.5)
def test_bilinear(subject: Subject, case: Case) -> None:
    agrees(subject, case)


@covers("MSDA-13", cases=affine_maps)
def test_affine_maps_are_reproduced(subject: Subject, case: Case) -> None:
    agrees(subject, case)


# -- range and border -----------------------------------------------------------------------------------------


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


@covers("MSDA-16", cases=far_away)
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


@covers("MSDA-21", cases=lambda subject: drawn_cases(subject))
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


@covers("MSDA-22", cases=long_sums, dtypes=HALF)
def test_sums_are_float32(subject: Subject, case: Case) -> None:
    agrees(subject, case, precise=True)


def long_rows(subject: Subject) -> Iterator[Case]:
    for levels in (((2, 334),), ((251, 3),), ((37, 190), (5, 7))):
        s = Structure(levels, queries=40, points=2, channels=4)
        yield case_at(subject, s, inside, note="long rows")


@covers("MSDA-23", cases=long_rows)
def test_coordinates_are_float32(subject: Subject, case: Case) -> None:
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


def large_maps(subject: Subject) -> Iterator[Case]:
    """Cell centres at the far end of large maps; sides are powers of two, so that locations are exact."""
    levels: tuple[tuple[int, int], ...] = ((64, 64), (32, 64))
    heads, channels = 8, 32  # a half kernel may count in 16 bits: cell * heads * channels exceeds them
    if TORCH_DTYPES[subject.dtype].itemsize >= 4:
        levels, heads, channels = ((1, 32768), (32768, 2), (4096, 4096), (64, 64)), 1, 1
        if subject.settings.profile == "smoke":
            levels = ((1, 32768), (32768, 2))
    s = Structure(levels, batch=1, queries=48, heads=heads, channels=channels, points=1)

    def far_end(fill: Filler, s: Structure) -> Tensor:
        return s.sizes() - 1 - torch.floor(fill.uniform(0, 1, *s.samples, 2) ** 4 * s.sizes())

    def one_level(fill: Filler, s: Structure) -> Tensor:
        weights = torch.zeros(s.samples, dtype=torch.float64)
        for query in range(s.queries):
            weights[:, query, :, query % len(s.levels)] = 1
        return weights

    yield dyadic_case(
        subject, s, pixels=far_end, weights=one_level, value=lambda f, s: cell_codes(s), note="large maps"
    )


@covers("MSDA-26", cases=large_maps)
def test_indices_are_integers(subject: Subject, case: Case) -> None:
    s = structure_of(case)
    pixels = pixels_of(case).long()
    width = case["spatial_shapes"][:, 1, None]
    cells = case["level_start_index"][:, None] + pixels[..., 1] * width + pixels[..., 0]
    codes = (cells % 251).double()
    expected = (codes * case["attention_weights"].double()).sum((-2, -1))[..., None]
    expected = expected.expand(s.batch, s.queries, s.heads, s.channels).flatten(2)
    subject.compare_exactly("output", subject.forward(case), expected)


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
