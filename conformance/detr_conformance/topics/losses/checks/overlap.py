"""How accurate an operation is that computes half-precision arguments in float32 and rounds its result once."""

from __future__ import annotations

import torch

from detr_conformance.harness.block import compare_result, expectations, forward, run
from detr_conformance.harness.block_case import call_with, inputs_of, reference_callable
from detr_conformance.harness.case import TORCH_DTYPES, Case
from detr_conformance.harness.expectation import Expectation
from detr_conformance.harness.subject import Result, Subject
from detr_conformance.harness.suite_test import HALF

ROUNDINGS = 4.0  # of quotients and their sum, where everything before them is exact


def rounded_once(subject: Subject, case: Case, backward: bool = False) -> dict[str, Expectation]:
    """The limits of float32 arithmetic on these very numbers (float64 arithmetic in float64), and of one rounding."""
    if subject.dtype not in HALF:
        return expectations(subject, case, backward=backward, precise=True)
    wide = expectations(subject, case, backward=backward, precise=True, dtype="float32")
    info = torch.finfo(subject.torch_dtype)
    return {
        name: Expectation(
            right.expected,
            right.limit + 1.001 * info.eps / 2 * right.expected.abs() + info.smallest_normal * info.eps,
        )
        for name, right in wide.items()
    }


def accurate(subject: Subject, case: Case, backward: bool = False) -> None:
    """The output, and the gradients if asked for, are those of float32 arithmetic, rounded once."""
    result = run(subject, case) if backward else Result(forward(subject, case))
    compare_result(subject, result, rounded_once(subject, case, backward))


def agrees_on_exact_areas(subject: Subject, case: Case) -> None:
    """Areas, sums and differences of the case are exact in every dtype: a few roundings of numbers up to 1 remain.

    Where a side is zero, random errors of the coordinates, from which other limits come, would make it negative.
    """
    inputs = {name: t.double() for name, t in inputs_of(subject.operation, case).items()}
    expected = call_with(subject.operation, reference_callable(subject.operation, case, torch.float64), inputs)
    dtype = TORCH_DTYPES["float32" if subject.dtype == "float64" else subject.dtype]
    limit = torch.full_like(expected, ROUNDINGS * torch.finfo(dtype).eps / 2)
    subject.compare("output", forward(subject, case), expected, limit)
