"""Sizes of `ms_deform_attn`: nothing to do, and any number of everything. Clauses: MSDA-42, 43, 50 and 51."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch

from detr_conformance.harness.case import Case, LazyCases
from detr_conformance.harness.fill import Filler
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.topics.deformable_attention.cases.core import (
    Structure,
    case_at,
    everywhere,
    make_case,
    structure_of,
)
from detr_conformance.topics.deformable_attention.checks.agreement import GRADIENTS, ordinary, whole

OPERATION = "ms_deform_attn"


def nothing_to_do(subject: Subject) -> Iterator[Case]:
    fill = Filler(subject.dtype, "empty")
    for sizes in ({"batch": 0}, {"queries": 0}):
        s = Structure(**sizes)  # type: ignore[arg-type]
        name = next(iter(sizes))
        yield make_case(fill, s, locations=fill.uniform(0, 1, *s.samples, 2), note=f"{name}: 0")


@covers("MSDA-42", cases=nothing_to_do)
def test_nothing_to_do(subject: Subject, case: Case) -> None:
    s = structure_of(case)
    expected = torch.zeros(s.batch, s.queries, s.heads * s.channels)
    subject.compare_exactly("output", subject.forward(case), expected)
    if subject.backward:
        gradients = subject.run(case).gradients
        for name in GRADIENTS:
            subject.compare_exactly(f"grad_{name}", subject.gradient(name, gradients), torch.zeros(case[name].shape))


def empty_levels(subject: Subject) -> Iterator[Case]:
    for levels in (((4, 8), (0, 5), (2, 2)), ((3, 0), (4, 8))):
        fill = Filler(subject.dtype, "empty level", levels)
        s = Structure(levels)
        yield make_case(fill, s, locations=fill.uniform(-0.1, 1.1, *s.samples, 2), note="a level without cells")


@covers("MSDA-43", cases=empty_levels, plain=ordinary)
def test_empty_levels(subject: Subject, case: Case) -> None:
    whole(subject, case)


def counts(subject: Subject) -> LazyCases:
    small = Structure(((3, 4), (2, 2)), batch=1, queries=2, heads=1, channels=2, points=2)
    structures = [replace(small, batch=batch) for batch in (1, 3, 65, 96)]
    tiles = (1, 2, 31, 32, 33, 63, 65, 100, 127, 129, 257, 1025)
    structures += [replace(small, queries=queries, channels=4) for queries in tiles]
    structures.append(Structure(((3, 4),), batch=1, queries=33_000, heads=2, channels=1, points=1))
    return LazyCases([partial(case_at, subject, s, everywhere, note="counts") for s in structures])


@covers("MSDA-50", cases=counts, plain=ordinary)
def test_any_batch_and_queries(subject: Subject, case: Case) -> None:
    whole(subject, case)


def sizes(subject: Subject) -> LazyCases:
    base = Structure(((5, 6), (3, 4)), batch=2, queries=5, heads=2, channels=4, points=3)
    vectors = (1, 2, 3, 4, 6, 8, 12, 16, 17, 24, 31, 32, 33, 48, 64, 71, 96, 128, 130, 256)
    structures = [replace(base, channels=channels) for channels in vectors]
    structures += [replace(base, heads=heads) for heads in (1, 3, 5, 7, 8, 12, 16)]
    structures += [replace(base, points=points) for points in (1, 2, 3, 5, 7, 8, 9, 16, 17, 33)]
    for count in (1, 3, 4, 5, 6, 9):
        structures.append(replace(base, levels=tuple((2 + level % 3, 7 - level % 5) for level in range(count))))
    thin: tuple[tuple[tuple[int, int], ...], ...] = (((1, 1),), ((1, 9), (9, 1)), ((64, 2), (1, 50)), ((100, 3),))
    structures += [replace(base, levels=levels) for levels in thin]
    for channels, points, count in ((32, 4, 4), (32, 8, 4), (16, 4, 3), (64, 4, 4), (32, 4, 1)):  # as published
        levels = tuple((9 - 2 * level, 8 - level) for level in range(count))
        structures.append(Structure(levels, 1, 9, 8, channels, points))
    return LazyCases([partial(case_at, subject, s, everywhere, note="sizes") for s in structures])


@covers("MSDA-51", cases=sizes, plain=ordinary)
def test_any_sizes(subject: Subject, case: Case) -> None:
    whole(subject, case)
