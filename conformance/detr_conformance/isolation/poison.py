"""Memory that a call is about to be given, filled with NaN before."""

from __future__ import annotations

from collections.abc import Iterable

import torch

LARGEST = 1 << 26


def poison(device: str, sizes: Iterable[int], dtype: torch.dtype) -> None:
    """Fills memory of the sizes about to be allocated with NaN, and frees it again."""
    for size in set(sizes):
        if size * 8 > LARGEST:
            continue
        blocks = [torch.full((size,), torch.nan, dtype=dtype, device=device) for _ in range(2)]
        del blocks
