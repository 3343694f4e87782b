"""Whether two implementations computed the same, right or wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from detr_conformance.harness.case import PARAMETER, Case
from detr_conformance.harness.expectation import Expectation
from detr_conformance.harness.mismatch import Mismatch, compare
from detr_conformance.likeness.traces import Trace

ROUNDINGS = {2: 16, 4: 256}  # of a result without a limit, by the size of its numbers
FLOOR = 4
OUTLIER = 10.0  # times the median: a limit that says nothing of the others
REACHED = 1e-6  # of the largest limit: an element with a smaller one has hardly anything in it
MOST_GROWTH = 16.0


def is_right(trace: Trace, reference: Trace, limits: Mapping[str, Expectation]) -> bool:
    """Whether all results lie within the limits of the reference's; those without a limit close to them."""
    if not _of_one_form(trace, reference):
        return False
    return all(
        _within(got, limits[name]) if name in limits else close(got, right)
        for (name, got), (_, right) in zip(trace.results, reference.results, strict=True)
    )


def alike(one: Trace, other: Trace, limits: Mapping[str, Expectation], floor: float = 0.0) -> bool:
    """Whether two implementations, the first of which is wrong, ended in the same way with the same results."""
    if not _of_one_form(one, other):
        return False
    return all(
        close(a, b, limits.get(name), floor) for (name, a), (_, b) in zip(one.results, other.results, strict=True)
    )


def rounding_of(case: Case) -> float:
    """What a rounding of the largest inputs may add to any result, however small that is."""
    inputs = [t for name, t in case.tensors.items() if t.is_floating_point() and not name.startswith(PARAMETER)]
    return max((FLOOR * torch.finfo(tensor.dtype).eps * size(tensor.double()) for tensor in inputs), default=0.0)


def close(known: Tensor, got: Tensor, right: Expectation | None = None, floor: float = 0.0) -> bool:
    """Whether two results are apart by roundings alone.

    A limit belongs to the right result. Of a wrong one the sums have other terms, perhaps larger ones: no element's
    limit is far below what is usual in the tensor, and all grow with the result.
    """
    if known.shape != got.shape or known.dtype != got.dtype:
        return False
    if not known.is_floating_point():
        return torch.equal(known, got)
    unit = ROUNDINGS[2 if known.itemsize == 2 else 4] * max(
        torch.finfo(known.dtype).eps, torch.finfo(torch.float32).eps
    )
    known, got = known.double(), got.double()
    finite = known.isfinite()
    if not torch.equal(finite, got.isfinite()) or not torch.equal(
        known[~finite].nan_to_num(), got[~finite].nan_to_num()
    ):
        return False
    apart = (known - got)[finite].abs()
    return bool((apart <= (floor + _allowed(known, right, unit)[finite])).all())


def _allowed(known: Tensor, right: Expectation | None, unit: float) -> Tensor:
    """Of each element of a float64 result, of which one rounding and what follows from it is so large a share."""
    if right is None or right.limit.shape != known.shape:
        return unit * known.abs().clamp(min=size(known))
    limit = right.limit.nan_to_num(nan=math.inf)
    usual = limit[limit.isfinite()]
    usual = usual[usual > REACHED * usual.max()] if usual.numel() else usual
    if usual.numel():
        limit = limit.clamp(min=float(usual.clamp(max=OUTLIER * float(usual.median())).mean()))
    right_size = size(right.expected)
    growth = min(max(1.0, size(known) / right_size), MOST_GROWTH) if right_size > 0 else 1.0
    between = 0.0 if right.interval is None else (right.interval[1] - right.interval[0]).abs()
    return growth * limit + unit * known.abs() + between


def _of_one_form(one: Trace, other: Trace) -> bool:
    return one.end == other.end and [name for name, _ in one.results] == [name for name, _ in other.results]


def _within(got: Tensor, right: Expectation) -> bool:
    try:
        compare("", got, right.expected, right.limit, right.interval)
    except Mismatch:
        return False
    return True


def size(tensor: Tensor) -> float:
    """The root mean square of what is finite."""
    finite = tensor[tensor.isfinite()]
    return float(finite.square().mean().sqrt()) if finite.numel() else 0.0
