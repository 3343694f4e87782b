"""What one step of training holds and computes for an image, as a function of its pixels.

Each tensor of a detector has a constant number of elements plus a multiple of the pixels; where all cells of a map
attend to all, there is a multiple of the pixels squared as well. So a few small images, of which every stride divides
the sides, tell of large ones, and in seconds instead of minutes.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

SIZES = ((192, 320), (256, 448), (320, 576))  # multiples of 64, the largest stride, with cells for 900 queries


class Cost(NamedTuple):
    """Of one batch.

    Attributes:
        kept: bytes that the forward pass leaves for the backward one.
        peak: the most bytes that both hold at once. Neither counts parameters, their gradients, or the batch.
        flops: floating-point operations of matrix products and convolutions, a multiplication and an addition being
            two, forward and backward, with what activation checkpointing computes again.
    """

    kept: int
    peak: int
    flops: int


class Trace(NamedTuple):
    """Of one batch, how it went.

    Attributes:
        held: bytes after each operation, and once more at the end of the forward pass.
        forward: how many of them belong to the forward pass.
        flops: as in `Cost`.
    """

    held: tuple[int, ...]
    forward: int
    flops: int

    @property
    def cost(self) -> Cost:
        return Cost(self.held[self.forward - 1], max(self.held), self.flops)


class CostMeter(TorchDispatchMode):
    """Counts operations within the block, and the bytes of what they have made and is still there.

    torch's FlopCounterMode, with the same formulas, holds on to tensors that activation checkpointing lets go.

    Attributes:
        now: bytes of all tensors made here; not of what was there before.
        held: what `now` was after each operation.
        flops: floating-point operations of matrix products and convolutions.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.flops = 0
        self.held: list[int] = []
        self._alive: dict[int, weakref.ref[Any]] = {}
        self._old: set[int] = set()

    def exclude(self, tensors: list[Tensor]) -> None:
        """Do not count these, nor what is written into them."""
        self._old |= {_key(tensor.untyped_storage()) for tensor in tensors}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        made = function(*args, **kwargs)
        if (flops := flop_registry.get(function._overloadpacket)) is not None:
            self.flops += flops(*args, **kwargs, out_val=made)
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        self.held.append(self.now)
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = _key(storage), storage.nbytes()
        if key not in self._old and key not in self._alive:
            self._alive[key] = weakref.ref(storage, partial(self._gone, key, size))
            self.now += size

    def _gone(self, key: int, size: int, _: Any) -> None:
        del self._alive[key]
        self.now -= size


def traced(model: nn.Module, batch: list[Tensor], loss: Callable[[], Tensor]) -> Trace:
    """What computing this loss of the model on the batch and its gradients takes; the gradients are thrown away."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)  # so that none is made within the measurement
    meter = CostMeter()
    meter.exclude([*model.parameters(), *model.buffers(), *(p.grad for p in trained if p.grad is not None), *batch])
    with meter:
        total = loss()
        meter.held.append(meter.now)  # without what only the last operation needed
        forward = len(meter.held)
        total.backward()
    model.zero_grad(set_to_none=True)
    return Trace(tuple(meter.held), forward, meter.flops)


def cost_of_pixels(traces: Mapping[int, Trace], pixels: int) -> Cost:
    """The cost of an image of which no trace was made.

    Every operation follows its own polynomial. The peak is that of the operation which holds most in this image: in a
    small image, that can be another one.

    Args:
        traces: by pixels, of the same model: two for what is linear in the pixels, three for a square.

    Raises:
        ValueError: the traces differ in their operations.
    """
    lengths = {(len(trace.held), trace.forward) for trace in traces.values()}
    if len(lengths) != 1:
        raise ValueError(f"the model does other things with larger images: {sorted(lengths)} operations")
    held = [
        _interpolated(dict(zip(traces, step, strict=True)), pixels)
        for step in zip(*(trace.held for trace in traces.values()), strict=True)
    ]
    flops = _interpolated({at: trace.flops for at, trace in traces.items()}, pixels)
    return Trace(tuple(held), next(iter(traces.values())).forward, flops).cost


def _interpolated(values: Mapping[int, int], pixels: int) -> int:
    """Lagrange's formula, in fractions: extrapolation would multiply rounding errors."""
    total = Fraction(0)
    for at, value in values.items():
        weight = Fraction(1)
        for other in values:
            if other != at:
                weight *= Fraction(pixels - other, at - other)
        total += weight * value
    return round(total)


def _key(storage: torch.UntypedStorage) -> int:
    return int(storage._cdata)
