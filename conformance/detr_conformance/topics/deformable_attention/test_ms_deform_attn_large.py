"""Sizes together, about powers of two, and as models have them. Clauses: MSDA-50, 51, 58 and 59."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from detr_conformance.harness.case import Case, LazyCases
from detr_conformance.harness.mismatch import require
from detr_conformance.harness.subject import Subject
from detr_conformance.harness.suite_test import covers
from detr_conformance.target import DTYPES
from detr_conformance.topics.deformable_attention.cases.core import Structure, case_at, everywhere, structure_of
from detr_conformance.topics.deformable_attention.cases.sizes import (
    LONG,
    PRODUCTION,
    counts_around_powers,
    covering_structures,
    sizes_around_powers,
)
from detr_conformance.topics.deformable_attention.checks.agreement import ordinary, whole
from detr_conformance.topics.deformable_attention.checks.large import MANY, judge_large

OPERATION = "ms_deform_attn"


def _cases(subject: Subject, structures: list[Structure], note: str) -> LazyCases:
    return LazyCases([partial(case_at, subject, s, everywhere, note=note) for s in structures])


def some_of(subject: Subject, around: Callable[[int], list[Structure]]) -> LazyCases:
    """Every second size in float32, every fourth in the others."""
    turn, step = DTYPES.index(subject.dtype), 2 if subject.dtype == "float32" else 4
    return _cases(subject, around(turn)[turn % step :: step], "about a power of two")


@covers("MSDA-50", cases=lambda subject: some_of(subject, counts_around_powers), plain=ordinary)
def test_counts_around_powers_of_two(subject: Subject, case: Case) -> None:
    whole(subject, case)


@covers("MSDA-51", cases=lambda subject: some_of(subject, sizes_around_powers), plain=ordinary)
def test_sizes_around_powers_of_two(subject: Subject, case: Case) -> None:
    whole(subject, case)


# Of the covering array every row in float32, every fourth one in each half dtype, every eighth in float64.
ROWS = {
    "float32": slice(None),
    "float16": slice(0, None, 4),
    "bfloat16": slice(2, None, 4),
    "float64": slice(1, None, 8),
}


def together(subject: Subject) -> LazyCases:
    return _cases(subject, covering_structures(subject.settings.seed)[ROWS[subject.dtype]], "sizes together")


@covers("MSDA-58", cases=together, costly=True, plain=ordinary)
def test_sizes_together(subject: Subject, case: Case) -> None:
    judge_large(subject, case)


def as_models_call_it(subject: Subject) -> LazyCases:
    """One call of production size in each dtype, the other one in the next; and a long one in two of them."""
    long = [LONG] if subject.dtype in ("float32", "bfloat16") else []
    return _cases(subject, [*long, PRODUCTION[DTYPES.index(subject.dtype) % 2]], "as models call it")


@covers("MSDA-59", cases=as_models_call_it, costly=True, any_call=True, plain=ordinary)
def test_calls_of_models(subject: Subject, case: Case) -> None:
    require(structure_of(case).queries > 1_000, "fewer queries than a model has")
    judge_large(subject, case, MANY)
