"""How far same-precision implementations may differ: the spread of runs with randomised roundings.

For a composed block the first-order effect of rounding every intermediate is not written out but measured: the
reference runs several times in the claimed dtype, each result of an operator multiplied by 1 + u e, e uniform in
[-1, 1] and u the unit round-off of that result's dtype. Any order of the same operations moves the result by about as
much (stochastic arithmetic; Vignes, Math. Comput. Simul. 35, 1993; Parker, UCLA CSD-970002, 1997).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from detr_conformance.harness.mismatch import require

# Exact by nature: a perturbed floor would be another cell.
EXACT = ("floor", "ceil", "round", "trunc", "where", "masked_fill", "zeros", "ones", "full", "copy", "clone", "detach")

# Sums round each of their terms and partial sums, and another order of summation rounds them otherwise, though the
# result may be far smaller than they are: here the terms get an error too.
PRODUCTS = ("mm", "bmm", "addmm", "baddbmm")
SUMS = (*PRODUCTS, "convolution", "sum", "mean", "_softmax", "native_layer_norm", "_embedding_bag")
FEW_TERMS = 16


class RandomRounding(TorchDispatchMode):
    """Every floating result of an operator, forward and backward, gets a random relative error of one rounding.

    Args:
        coarsest: round wider intermediates as if they had this dtype; None leaves them their own.
    """

    def __init__(self, generator: torch.Generator, coarsest: torch.dtype | None = None) -> None:
        super().__init__()
        self.generator = generator
        self.coarsest = coarsest

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if sums(func):
            growth = _growth(func, args)
            args = tuple(self._rounded(argument, growth, in_sum=True) for argument in args)
        result = func(*args, **(kwargs or {}))
        if exact(func):
            return result
        if isinstance(result, tuple | list):
            return type(result)(self._rounded(each) for each in result)
        return self._rounded(result)

    def _rounded(self, value: Any, times: float = 1.0, in_sum: bool = False) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.numel() == 0:
            return value
        unit = times * unit_of(value.dtype, self.coarsest, in_sum)
        factor = torch.empty(value.shape, dtype=torch.float64).uniform_(1 - unit, 1 + unit, generator=self.generator)
        return factor.mul_(value).to(value.dtype)


class PooledRounding(RandomRounding):
    """The same for large tensors, where drawing takes the time: numbers of a pool, from places that are drawn."""

    POOL, CHUNK = (1 << 22) + 1, 1 << 15  # a chunk stays in the cache

    def __init__(self, generator: torch.Generator, coarsest: torch.dtype | None = None) -> None:
        super().__init__(generator, coarsest)
        self.pool = torch.empty(self.POOL, dtype=torch.float64).uniform_(-1, 1, generator=generator)
        self.factors = torch.empty(self.CHUNK, dtype=torch.float64)

    def _rounded(self, value: Any, times: float = 1.0, in_sum: bool = False) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.numel() < self.CHUNK:
            return super()._rounded(value, times, in_sum)
        unit = times * unit_of(value.dtype, self.coarsest, in_sum)
        flat = value.reshape(-1)
        rounded = torch.empty_like(flat, memory_format=torch.contiguous_format)
        chunks = list(zip(flat.split(self.CHUNK), rounded.split(self.CHUNK), strict=True))
        starts = torch.randint(self.POOL - self.CHUNK, (len(chunks),), generator=self.generator).tolist()
        for start, (before, after) in zip(starts, chunks, strict=True):
            factors = self.factors[: before.numel()]
            torch.mul(self.pool[start : start + before.numel()], unit, out=factors)
            after.copy_(factors.add_(1).mul_(before))
        return rounded.view(value.shape)


@cache
def unit_of(dtype: torch.dtype, coarsest: torch.dtype | None, in_sum: bool) -> float:
    """The round-off of a tensor; half precision is accumulated in float32, where alone its terms are rounded."""
    if coarsest is not None:
        return max(torch.finfo(dtype).eps, torch.finfo(coarsest).eps) / 2
    return min(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps) / 2 if in_sum else torch.finfo(dtype).eps / 2


@cache
def sums(func: Any) -> bool:
    return _name(func).startswith(SUMS)


@cache
def exact(func: Any) -> bool:
    changes_in_place = any(r.alias_info is not None for r in func._schema.returns)
    return func.is_view or changes_in_place or _name(func).startswith(EXACT)


def _name(func: Any) -> str:
    return str(func._schema.name).removeprefix("aten::")


def _growth(func: Any, args: tuple[Any, ...]) -> float:
    """How much more than a term's own rounding a sequential sum may add to it: partial sums grow as the root of n."""
    tensors = [argument for argument in args if isinstance(argument, Tensor)]
    name = _name(func)
    if name in PRODUCTS:
        terms = tensors[-1].shape[-2]
    elif name == "convolution":
        terms = tensors[1][0].numel()
    else:
        return 1.0
    return max(1.0, math.sqrt(terms / FEW_TERMS))


def spread(
    run: Callable[[], dict[str, Tensor]],
    right: dict[str, Tensor],
    *,
    runs: int,
    seed: int,
    coarsest: torch.dtype | None = None,
    kind: type[RandomRounding] = RandomRounding,
) -> dict[str, Tensor]:
    """Root mean square deviation of `run` from `right`, element by element, over runs with random roundings.

    Where an element's own estimate is small by chance, a share of what is usual in the tensor stands in for it.
    """
    total = {name: torch.zeros_like(tensor) for name, tensor in right.items()}
    for index in range(runs):
        generator = torch.Generator().manual_seed(seed + index)
        with kind(generator, coarsest):
            results = run()
        for name, result in results.items():
            off = torch.where(right[name].isfinite(), result.detach().double() - right[name], 0.0)
            require(off.isfinite().all(), f"{name} of the reference overflows in {result.dtype}")
            total[name] += off.square()
    found = {name: (square / runs).sqrt() for name, square in total.items()}
    return {name: _smoothed(rms, (rms > 0) | (right[name] != 0)) for name, rms in found.items()}


SMOOTHING = 0.6
OUTLIER = 10.0


def _smoothed(rms: Tensor, reached: Tensor) -> Tensor:
    """No element far below what is usual: among those that are reached at all, and, for the others, in the tensor.

    A gradient may be zero nearly everywhere; these zeros say nothing of how far the rest may be off.
    """
    if not (rms > 0).any():
        return rms
    # Without the weight of ill-conditioned elements, which may be off by anything.
    clamped = rms.clamp(max=OUTLIER * rms[rms > 0].median())
    usual = torch.where(reached, clamped[reached].mean(), clamped.mean())
    return torch.maximum(rms, SMOOTHING * usual)
