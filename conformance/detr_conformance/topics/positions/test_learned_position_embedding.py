"""The learned embedding of feature maps (chapter 8, POS-15 and POS-24 to POS-28)."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from detr_conformance.harness.block import agrees, forward, fresh, gradients_agree, parameters_by_name, raises
from detr_conformance.harness.block_case import parameters_of
from detr_conformance.harness.case import Case
from detr_conformance.harness.mismatch import expect
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.topics.positions.cases import learned_case, rectangles, small_tables

OPERATION = "learned_position_embedding"


def square_map(subject: Subject) -> Iterator[Case]:
    """A square map and square tables, on which exchanged axes raise nothing, and an ordinary one."""
    yield learned_case(subject, rectangles(4, 4, (4, 4), (3, 2)), "square", rows=6, columns=6)
    yield next(small_tables(subject))


@covers("POS-24", cases=square_map)
def test_columns_before_rows(subject: Subject, case: Case) -> None:
    exactly_the_tables(subject, case)


@covers("POS-25", cases=lambda subject: [*small_tables(subject), *full_tables(subject)])
def test_numbered_on_the_map(subject: Subject, case: Case) -> None:
    exactly_the_tables(subject, case)


def exactly_the_tables(subject: Subject, case: Case) -> None:
    """Every cell of every image holds the entries of its column and its row, bit for bit."""
    batch, height, width = case["mask"].shape
    tables = parameters_of(case)
    column, row = tables["col_embed.weight"][:width], tables["row_embed.weight"][:height]
    cells = torch.cat((column.expand(height, -1, -1), row[:, None].expand(-1, width, -1)), -1)
    subject.compare_exactly("output", forward(subject, case), cells.permute(2, 0, 1).expand(batch, -1, -1, -1))


def full_tables(subject: Subject) -> Iterator[Case]:
    yield learned_case(subject, rectangles(5, 7, (5, 7)), "as large as the tables", rows=5, columns=7)


@covers("POS-26", cases=full_tables)
def test_too_large_a_map(subject: Subject, case: Case) -> None:
    exactly_the_tables(subject, case)
    for shape in ((1, 6, 7), (1, 5, 8), (2, 7, 5)):
        larger = case.having(mask=torch.zeros(shape, dtype=torch.bool))
        raises(subject, larger, f"a map of {shape[1]} x {shape[2]} is larger than tables of 5 rows and 7 columns")


@covers(
    "POS-27",
    cases=lambda subject: [
        learned_case(subject, rectangles(2, 3, (2, 3)), "its own tables", feats=64, rows=40, columns=30)
    ],
    once=True,
)
def test_initialisation(subject: Subject, case: Case) -> None:
    """Uniform: within [0, 1), and no tenth of the range holds fewer than 7 or more than 13 of 100 numbers."""
    module = fresh(subject, case)
    for name, parts in parameters_by_name(subject.operation, module, case).items():
        numbers = torch.cat([part.detach().cpu().double().flatten() for part in parts])
        low, high = numbers.min().item(), numbers.max().item()
        shares = torch.histc(numbers, bins=10, min=0, max=1) / numbers.numel()
        expect(
            low >= 0 and high <= 1 and bool(((shares > 0.07) & (shares < 0.13)).all()),
            f"{name} is not uniform in [0, 1): from {low:.3g} to {high:.3g}, mean {numbers.mean().item():.3f}",
            where=name,
            expected="uniform in [0, 1)",
            got=f"from {low:.3g} to {high:.3g}, deviation {numbers.std().item():.3g}",
        )


@covers(
    "POS-28", cases=lambda subject: [*small_tables(subject), *full_tables(subject)], feature="backward", plain=agrees
)
def test_gradients(subject: Subject, case: Case) -> None:
    gradients_agree(subject, case)


@covers("POS-15", cases=lambda subject: [next(small_tables(subject))], once=True)
def test_boolean_masks_only(subject: Subject, case: Case) -> None:
    for dtype in (torch.uint8, torch.int64, torch.float32):
        raises(subject, case.having(mask=case["mask"].to(dtype)), f"the mask is {dtype}")
