"""The numbers of a case, drawn from one CPU generator."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from detr_conformance.harness.case import TORCH_DTYPES, mixed_seed


class Filler:
    """Draws float64 numbers from a generator seeded by anything printable; `dtype` is the claimed one."""

    def __init__(self, dtype: str, *seed: Any) -> None:
        self.dtype = TORCH_DTYPES[dtype]
        self.generator = torch.Generator().manual_seed(mixed_seed(*seed))

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, dtype=torch.float64)

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=self.generator, dtype=torch.float64)

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """Whole numbers in [low, high], as float64."""
        return torch.randint(low, high + 1, shape, generator=self.generator).double()

    def chance(self, share: float, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator) < share
