"""What a result is compared with."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Expectation:
    """What a tensor must be: float64 numbers, their limits, and where several answers are right, an interval."""

    expected: Tensor
    limit: Tensor
    interval: Tensor | None = None
