"""What stands in for the reference's results, so that one sees what a property does with them.

Run on the reference itself, a property says what is right. Run on *tags*, numbers that all differ, it shows which
element of a result went into which element of a comparison; and what it expects changes exactly where it took that
from the answer. Run on infinities it changes wherever a property looks at what is finite.
"""

from __future__ import annotations

from math import gcd

import torch
from torch import Tensor


def as_it_is(tensor: Tensor) -> Tensor:
    """In a storage of its own; the graph is kept."""
    return tensor.clone()


class Tags:
    """Answers in which no number comes twice, over all results of a case, as far as the dtype has as many."""

    def __init__(self) -> None:
        self._used: dict[torch.dtype, int] = {}

    def __call__(self, tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return turned(tensor)
        used = self._used.get(tensor.dtype, 0)
        self._used[tensor.dtype] = used + tensor.numel()
        numbers = tags(tensor.dtype, used, used + tensor.numel()).view(tensor.shape)
        return numbers + 0 * tensor.nan_to_num(0, 0, 0)  # of the same graph


def tags(dtype: torch.dtype, start: int, stop: int) -> Tensor:
    """From 2^-10 to 2^10, in no order that sums or differences would keep; then from the beginning again."""
    bits = {8: torch.int64, 4: torch.int32, 2: torch.int16}[dtype.itemsize]
    low, high = (int(torch.tensor(bound, dtype=dtype).view(bits)) for bound in (2.0**-10, 2.0**10))
    number = torch.arange(start, stop) % (high - low)
    return (low + number * _coprime(high - low) % (high - low)).to(bits).view(dtype)


def _coprime(count: int) -> int:
    """A step that reaches all of so many numbers before it comes back, without an overflow in between."""
    return next(step for step in range(min(12345, count // 3), count) if gcd(step, count) == 1)


def infinite(tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        return turned(tensor)
    return torch.full_like(tensor, torch.inf) + 0 * tensor.nan_to_num(0, 0, 0)


def turned(tensor: Tensor) -> Tensor:
    """Integers in another order, so that indices stay in range; truth values negated."""
    return ~tensor if tensor.dtype == torch.bool else tensor.flip(tuple(range(tensor.ndim)))
