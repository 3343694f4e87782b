"""What the arguments of `ms_deform_attn` hold in models: at initialisation, in an encoder, under a loss; any two.

Sizes alone do not enter every path: a kernel may look at where its samples lie, at weights that are alike, or at zeros
in the incoming gradient, and take another way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

import torch
from torch import Tensor

from detr_conformance.harness.case import Case
from detr_conformance.harness.covering import Row, covering_rows
from detr_conformance.harness.fill import Filler
from detr_conformance.harness.subject import Subject
from detr_conformance.topics.deformable_attention.cases.core import (
    Pixels,
    Structure,
    case_at,
    constant,
    everywhere,
    inside,
    softmaxed,
)

STRUCTURE = Structure(((37, 71), (28, 18)), batch=2, queries=290, heads=2, channels=10, points=4)
Part = Callable[[Filler, Structure], Tensor]


# -- where samples lie ----------------------------------------------------------------------------------------


def in_clusters(fill: Filler, s: Structure) -> Tensor:
    """Queries sorted by place, as an encoder's are: those of a run look around one point."""
    runs = -(-s.queries // 64)
    centre = fill.uniform(0.3, 0.7, s.batch, runs, 1, 1, 1, 2).repeat_interleave(64, 1)[:, : s.queries] * s.sizes()
    return centre.floor() + fill.integers(-5, 4, *s.samples, 2) + fill.uniform(0.1, 0.9, *s.samples, 2)


def on_the_same_cells(fill: Filler, s: Structure) -> Tensor:
    """All queries at one reference, as in the first step of a decoder: each sample a little beside the last query's."""
    one = inside(fill, Structure(s.levels, s.batch, 1, s.heads, s.channels, s.points)).floor()
    return one + fill.uniform(0.45, 0.55, *s.samples, 2)


def nearly_all_inside(fill: Filler, s: Structure) -> Tensor:
    """One sample in a hundred lies outside."""
    return torch.where(fill.chance(0.01, *s.samples, 1), inside(fill, s) + 2 * s.sizes(), inside(fill, s))


def far_outside(fill: Filler, s: Structure) -> Tensor:
    """Half of the samples lie a power of two beside a place inside, where an index of few bits would find it again."""
    power = fill.integers(5, 16, *s.samples, 2)
    away = fill.chance(0.5, *s.samples, 1) * torch.where(fill.chance(0.5, *s.samples, 2), 2.0**power, -(2.0**power))
    return inside(fill, s) + away


# -- weights, maps and incoming gradients ---------------------------------------------------------------------


def alike(fill: Filler, s: Structure) -> Tensor:
    """At initialisation."""
    return torch.full(s.samples, 1 / (len(s.levels) * s.points), dtype=torch.float64)


def sharp(fill: Filler, s: Structure) -> Tensor:
    """One weight of nearly one, the others small, but not zero."""
    b, q, m, levels, points = s.samples
    return (6 * fill.normal(b, q, m, levels * points)).softmax(-1).view(s.samples)


def one_level(fill: Filler, s: Structure) -> Tensor:
    return softmaxed(fill, s) * (torch.arange(len(s.levels)) == 1)[:, None]


def maps(fill: Filler, s: Structure) -> Tensor:
    return fill.normal(s.batch, s.cells, s.heads, s.channels)


def image_of_zeros(fill: Filler, s: Structure) -> Tensor:
    found = maps(fill, s)
    found[-1] = 0
    return found


def sparse_maps(fill: Filler, s: Structure) -> Tensor:
    """As behind a ReLU, with cells that are zero as a whole."""
    return maps(fill, s).clamp(min=0) * fill.chance(0.3, s.batch, s.cells, 1, 1)


def gradients(fill: Filler, s: Structure) -> Tensor:
    return fill.normal(s.batch, s.queries, s.heads * s.channels)


def ones(fill: Filler, s: Structure) -> Tensor:
    """Of a sum."""
    return torch.ones(s.batch, s.queries, s.heads * s.channels, dtype=torch.float64)


def few_rows(fill: Filler, s: Structure) -> Tensor:
    """Of a loss of matched queries alone."""
    return gradients(fill, s) * fill.chance(0.12, s.batch, s.queries, 1)


def of_every_size(fill: Filler, s: Structure) -> Tensor:
    """One row of ordinary size, the others as small as those of easy negatives."""
    row = torch.arange(s.queries)[:, None] == 17
    return gradients(fill, s) * torch.where(row, 1.0, 2.0**-30)


LOCATIONS: Mapping[str, Pixels] = {
    each.__name__: each for each in (everywhere, inside, in_clusters, on_the_same_cells, nearly_all_inside, far_outside)
}
WEIGHTS: Mapping[str, Part] = {each.__name__: each for each in (softmaxed, alike, sharp, one_level)}
VALUES: Mapping[str, Part] = {each.__name__: each for each in (maps, image_of_zeros, sparse_maps, constant)}
GRADIENTS: Mapping[str, Part] = {each.__name__: each for each in (gradients, ones, few_rows, of_every_size)}


@cache
def rows() -> list[Row]:
    """Any two contents of different arguments meet in some row."""
    factors = {"locations": LOCATIONS, "weights": WEIGHTS, "value": VALUES, "grad_output": GRADIENTS}
    return covering_rows({name: tuple(each) for name, each in factors.items()}, lambda row: 0, 1)[0]


def contents(subject: Subject, s: Structure = STRUCTURE) -> list[Case]:
    """A case for each row."""
    return [
        case_at(
            subject,
            s,
            LOCATIONS[row["locations"]],
            note=", ".join(row.values()).replace("_", " "),
            weights=WEIGHTS[row["weights"]],
            value=VALUES[row["value"]],
            grad_output=GRADIENTS[row["grad_output"]],
        )
        for row in rows()
    ]
