"""Output of `ms_deform_attn`: from a location to cells and shares. Clauses: MSDA-11 to MSDA-13, MSDA-23, MSDA-26."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from detr_conformance.harness.case import TORCH_DTYPES, Case
from detr_conformance.harness.fill import Filler
from detr_conformance.harness.mismatch import require
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.topics.deformable_attention.cases.core import (
    Structure,
    case_at,
    drawn_cases,
    inside,
    make_case,
    pixels_of,
    structure_of,
    to_locations,
)
from detr_conformance.topics.deformable_attention.cases.dyadic import (
    SQUARE,
    WIDE,
    cell_centres,
    cell_codes,
    dyadic_case,
    gather,
)
from detr_conformance.topics.deformable_attention.checks.agreement import agrees, exact_output, ordinary

OPERATION = "ms_deform_attn"


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


# -- precision ----------------------------------------------------------------------------------------------


def long_rows(subject: Subject) -> Iterator[Case]:
    for levels in (((2, 334),), ((251, 3),), ((37, 190), (5, 7))):
        s = Structure(levels, queries=40, points=2, channels=4)
        yield case_at(subject, s, inside, note="long rows")


@covers("MSDA-23", cases=long_rows)
def test_coordinates_are_float32(subject: Subject, case: Case) -> None:
    agrees(subject, case, precise=True)


def large_structures(subject: Subject) -> Iterator[Structure]:
    """Of levels whose sides are powers of two, so that locations are exact; a row is cell * heads + head."""
    one = Structure(batch=1, queries=48, heads=1, channels=1, points=1)
    if TORCH_DTYPES[subject.dtype].itemsize == 2:
        # A half kernel may count in 16 bits: cell * heads * channels exceeds them, or the cell alone does.
        yield replace(one, levels=((64, 64), (32, 64)), heads=8, channels=32)
        yield replace(one, levels=((128, 128),) * 9, channels=2)
        return
    longest = ((1, 32768), (32768, 2))
    yield replace(one, levels=longest if subject.settings.profile == "smoke" else (*longest, (4096, 4096), (64, 64)))


def large_maps(subject: Subject) -> Iterator[Case]:
    """Cell centres at the far end of large maps."""
    yield from (_at_the_far_end(subject, s) for s in large_structures(subject))


def large_maps_of_gradients(subject: Subject) -> Iterator[Case]:
    """The same; in float64 a level of 2^18 cells is the largest, as the numbers of cells are those of float32."""
    for s in large_structures(subject):
        levels = s.levels if subject.dtype != "float64" else ((1, 32768), (512, 512), (64, 64))
        yield _at_the_far_end(subject, replace(s, levels=levels))


def _at_the_far_end(subject: Subject, s: Structure) -> Case:

    def far_end(fill: Filler, s: Structure) -> Tensor:
        return s.sizes() - 1 - torch.floor(fill.uniform(0, 1, *s.samples, 2) ** 4 * s.sizes())

    def one_level(fill: Filler, s: Structure) -> Tensor:
        weights = torch.zeros(s.samples, dtype=torch.float64)
        for query in range(s.queries):
            weights[:, query, :, query % len(s.levels)] = 1
        return weights

    return dyadic_case(
        subject, s, pixels=far_end, weights=one_level, value=lambda f, s: cell_codes(s), note="large maps"
    )


def _cells_read(case: Case) -> Tensor:
    """(B, Q, M, L, P): the cell whose centre a sample lies on."""
    pixels = pixels_of(case).long()
    width = case["spatial_shapes"][:, 1, None]
    return case["level_start_index"][:, None] + pixels[..., 1] * width + pixels[..., 0]


@covers("MSDA-26", cases=large_maps, plain=ordinary)
def test_indices_are_integers(subject: Subject, case: Case) -> None:
    s = structure_of(case)
    codes = (_cells_read(case) % 251).double()
    expected = (codes * case["attention_weights"].double()).sum((-2, -1))[..., None]
    expected = expected.expand(s.batch, s.queries, s.heads, s.channels).flatten(2)
    subject.compare_exactly("output", subject.forward(case), expected)


@covers("MSDA-26", cases=large_maps_of_gradients, feature="backward", costly=True, plain=ordinary)
def test_indices_are_integers_in_backward(subject: Subject, case: Case) -> None:
    s, cells = structure_of(case), _cells_read(case)
    require(int(cells.max()) * s.heads * s.channels > 1 << 16, "no large index")
    grad = case["grad_output"].double().view(s.batch, s.queries, s.heads, 1, 1, s.channels)
    gradients = subject.run(case, ("value", "attention_weights")).gradients
    of_weights = (grad * (cells % 251)[..., None]).sum(-1)
    subject.compare_exactly("grad_attention_weights", subject.gradient("attention_weights", gradients), of_weights)
    rows = (cells * s.heads + torch.arange(s.heads)[:, None, None]).flatten()
    expected = torch.zeros(s.cells * s.heads, s.channels, dtype=torch.float64)
    sent = case["attention_weights"].double()[..., None] * grad
    expected.index_add_(0, rows, sent.reshape(-1, s.channels))
    subject.compare_exactly("grad_value", subject.gradient("value", gradients), expected.view(case["value"].shape))
