"""The level embedding (chapter 8, POS-29 to POS-32)."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from detr_conformance.harness.block import agrees, forward, gradients_agree, raises
from detr_conformance.harness.case import Case
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.topics.positions.cases import level_case, unlike_levels

OPERATION = "level_position_embedding"


def equal_levels(subject: Subject) -> Iterator[Case]:
    """Levels of one size, so that only the choice of the vector can be wrong; and an ordinary case."""
    yield level_case(subject, ((2, 3), (3, 2), (6, 1)), "as many cells in each level")
    yield next(unlike_levels(subject))


@covers("POS-29", cases=equal_levels)
def test_its_levels_vector(subject: Subject, case: Case) -> None:
    exactly_the_sum(subject, case)


def sizes_of_all_kinds(subject: Subject) -> Iterator[Case]:
    yield from unlike_levels(subject)
    yield level_case(subject, ((2, 3), (0, 4), (3, 1)), "a level without cells")
    yield level_case(subject, ((3, 5),), "one level")


@covers("POS-30", cases=sizes_of_all_kinds)
def test_sizes_of_levels(subject: Subject, case: Case) -> None:
    exactly_the_sum(subject, case)


def exactly_the_sum(subject: Subject, case: Case) -> None:
    """One addition, rounded once; a float64 sum of two numbers of a shorter dtype rounds to the same."""
    sizes = [height * width for height, width in case["spatial_shapes"].tolist()]
    vectors = [vector.expand(size, -1) for vector, size in zip(case["level_embed"].double(), sizes, strict=True)]
    subject.compare_exactly("output", forward(subject, case), case["position_embedding"].double() + torch.cat(vectors))


@covers("POS-31", cases=lambda subject: [level_case(subject, ((3, 4), (2, 3)), "two levels")], once=True)
def test_levels_fill_the_cells(subject: Subject, case: Case) -> None:
    cells = case["position_embedding"]
    for shapes in ([[3, 4], [2, 2]], [[3, 4], [2, 4]], [[4, 4], [2, 3]]):
        wrong = case.having(spatial_shapes=torch.tensor(shapes))
        raises(subject, wrong, f"levels {shapes} do not sum up to {cells.shape[1]} cells")
    for levels in (1, 3):
        wrong = case.having(level_embed=torch.ones(levels, cells.shape[-1], dtype=cells.dtype))
        raises(subject, wrong, f"there are {levels} vectors for 2 levels")


@covers("POS-32", cases=sizes_of_all_kinds, feature="backward", plain=agrees)
def test_gradients(subject: Subject, case: Case) -> None:
    gradients_agree(subject, case)
