"""Cases of `ms_deform_attn` on which arithmetic is exact in any order: sides are powers of two, quarters of cells."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from detr_conformance.harness.case import Case
from detr_conformance.harness.fill import Filler
from detr_conformance.harness.mismatch import require
from detr_conformance.harness.subject import Subject
from detr_conformance.topics.deformable_attention.cases.core import Structure, make_case, pixels_of, to_locations

# Sides are powers of two, so that cell centres and quarter cells are exact in every dtype.
WIDE = Structure(levels=((4, 8), (2, 4), (8, 2)), batch=2, queries=7, heads=3, channels=5, points=2)
SQUARE = Structure(levels=((8, 8),), batch=2, queries=40, heads=2, channels=3, points=2)


def dyadic_case(
    subject: Subject,
    s: Structure,
    *seed: object,
    fractions: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75),
    pixels: Callable[[Filler, Structure], Tensor] | None = None,
    weights: Callable[[Filler, Structure], Tensor] | None = None,
    value: Callable[[Filler, Structure], Tensor] | None = None,
    dense: bool = False,
    note: str = "dyadic",
) -> Case:
    """A case on which arithmetic is exact in any order: sides are powers of two, coordinates whole quarters.

    One sample of each head counts, and values are integers below 4, so that 8 bits hold everything. A `dense` case is
    exact in float32 only: every sample counts, by eighths, values are integers below 100, gradients below 8; a partial
    sum fits 24 bits, but a result seldom fits the 8 or 11 of a half dtype and must be rounded once.
    """
    fill = Filler(subject.dtype, subject.settings.seed, note, s, *seed)
    largest = 99 if dense else 3
    if pixels is None:
        cell = torch.floor(fill.uniform(0, 1, *s.samples, 2) * (s.sizes() + 1)) - 1
        choice = torch.tensor(fractions, dtype=torch.float64)
        part = choice[fill.integers(0, len(fractions) - 1, *s.samples, 2).long()]
        where = cell + part
    else:
        where = pixels(fill, s)
    case = make_case(
        fill,
        s,
        locations=to_locations(where, s),
        value=value(fill, s) if value else fill.integers(-largest, largest, s.batch, s.cells, s.heads, s.channels),
        weights=weights(fill, s) if weights else eighths(fill, s) if dense else one_sample(fill, s),
        grad_output=fill.integers(-7, 7, s.batch, s.queries, s.heads * s.channels),
        note=note,
    )
    require(torch.equal(pixels_of(case), where), "a coordinate is not exact in the claimed dtype")
    return case


def eighths(fill: Filler, s: Structure) -> Tensor:
    return fill.integers(-12, 12, *s.samples) / 8


def one_sample(fill: Filler, s: Structure) -> Tensor:
    """Weight one on a random sample of each head, zero on the others."""
    chosen = fill.integers(0, len(s.levels) * s.points - 1, *s.samples[:3]).long()
    return torch.nn.functional.one_hot(chosen, len(s.levels) * s.points).view(s.samples).double()


def cell_centres(fill: Filler, s: Structure) -> Tensor:
    """A random cell's centre for every sample."""
    return torch.floor(fill.uniform(0, 1, *s.samples, 2) * s.sizes())


def gather(subject: Subject, s: Structure, *seed: object, value: Tensor | None = None, note: str) -> Case:
    """Every sample on a cell's centre; exact in any dtype."""
    return dyadic_case(
        subject, s, *seed, pixels=cell_centres, value=None if value is None else lambda f, s: value, note=note
    )


def cell_codes(s: Structure) -> Tensor:
    """(B, S, M, D): each cell holds its own number, modulo 251 so that bfloat16 can hold it."""
    codes = torch.arange(s.cells, dtype=torch.float64) % 251
    return codes[None, :, None, None].expand(s.batch, s.cells, s.heads, s.channels)
