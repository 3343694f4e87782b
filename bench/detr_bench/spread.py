"""The middle of repeated measurements, and how far they scatter."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

UNSTEADY = 0.2  # quartiles a fifth of the median apart: such a figure is marked


@dataclass(frozen=True)
class Spread:
    """Minimum, median and quartiles."""

    least: float
    median: float
    q1: float
    q3: float

    @property
    def iqr(self) -> float:
        return self.q3 - self.q1

    @property
    def unsteady(self) -> bool:
        return self.iqr > UNSTEADY * self.median

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "iqr": self.iqr, "unsteady": self.unsteady}


def spread(values: Sequence[float]) -> Spread:
    """Of at least one number."""
    if len(values) == 1:
        return Spread(*[values[0]] * 4)
    q1, median, q3 = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(min(values), median, q1, q3)
