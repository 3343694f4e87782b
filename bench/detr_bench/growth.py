"""How the cost of deformable attention grows with each of its sizes: time ~ size^exponent.

Its cost is B * Q * M * L * P samples of D channels each, so that doubling any of these sizes should double the time:
exponent 1. Cells alone cost little, as a query reads the same number of them from any map, but an encoder has one
query a cell: "cells" grows both. A cost that does not grow lowers an exponent, memory that outgrows a cache raises it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from detr_bench.workloads import Workload

EXPECTED = 1.0
FACTORS = (1, 2, 4, 8)
BASE = Workload(levels=((32, 32), (32, 32)), queries=2048, heads=4)

AXES: dict[str, Callable[[Workload, int], Workload]] = {
    "queries": lambda w, k: replace(w, queries=w.queries * k),
    "levels": lambda w, k: replace(w, levels=w.levels * k),
    "points": lambda w, k: replace(w, points=w.points * k),
    "heads": lambda w, k: replace(w, heads=w.heads * k),
    "batch": lambda w, k: replace(w, batch=w.batch * k),
    "cells": lambda w, k: replace(w, levels=tuple((h, s * k) for h, s in w.levels), queries=w.queries * k),
}


# Each measured point: the base sizes with one of them multiplied.
POINTS = {f"{axis}-x{factor}": (axis, factor) for axis in AXES for factor in FACTORS}


def grown(point: str) -> Workload:
    """The sizes of a point."""
    axis, factor = POINTS[point]
    return AXES[axis](BASE, factor)


@dataclass(frozen=True)
class Exponent:
    """A slope in log-log, and its standard error."""

    value: float
    error: float


def fit(factors: Sequence[float], seconds: Sequence[float]) -> Exponent:
    """Least squares of log(seconds) = exponent * log(factor) + constant.

    Raises:
        ValueError: fewer than three points, which leave no error to estimate.
    """
    if len(factors) < 3:
        raise ValueError(f"an exponent and its error need at least three sizes, got {len(factors)}")
    x, y = [math.log(each) for each in factors], [math.log(each) for each in seconds]
    x_mean, y_mean = sum(x) / len(x), sum(y) / len(y)
    x_squares = sum((each - x_mean) ** 2 for each in x)
    slope = sum((a - x_mean) * (b - y_mean) for a, b in zip(x, y, strict=True)) / x_squares
    left = sum((b - y_mean - slope * (a - x_mean)) ** 2 for a, b in zip(x, y, strict=True))
    return Exponent(slope, math.sqrt(left / (len(x) - 2) / x_squares))


def exponents(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The fits of a run, from the `extra_info` of its benchmarks; an axis that was not measured in full has none.

    They are fits to the fastest round of each size: what else the machine does can only add to a time.
    """
    series: dict[tuple[str, ...], dict[int, Mapping[str, Any]]] = {}
    for info in entries:
        if info["growth"]:
            key = (info["growth"]["axis"], *(info[name] for name in ("direction", "dtype", "device", "target", "name")))
            series.setdefault(key, {})[info["growth"]["factor"]] = info
    found = []
    for key, points in series.items():
        if sorted(points) == list(FACTORS):
            infos = [points[factor] for factor in FACTORS]
            named = dict(zip(("axis", "direction", "dtype", "device", "target", "name"), key, strict=True))
            found.append({**named, "expected": EXPECTED, "factors": list(FACTORS), **_fits(infos)})
    return found


def _fits(infos: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    fits: dict[str, Any] = {}
    for side in ("own", "reference"):
        seconds = [info[f"{side}_seconds"]["least"] for info in infos]
        exponent = fit(FACTORS, seconds)
        fits[side] = {"exponent": exponent.value, "error": exponent.error, "seconds": seconds}
    return fits
