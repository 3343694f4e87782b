"""Oracle and limits of `ms_deform_attn`, as derived in spec chapter 1, "What a verdict compares".

The reference in float64 gives the right numbers. How far a right implementation may be from them follows from the
first-order effect of rounding: S = sum of |dy/dt| |t| over inputs and intermediates t, written out here for the
output and each gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial, reduce

import torch
from torch import Tensor

from detr_conformance.harness.case import TORCH_DTYPES, Case
from detr_conformance.harness.expectation import Expectation
from detr_reference.deformable_attention.core import ms_deform_attn

ARGUMENTS = ("value", "spatial_shapes", "level_start_index", "sampling_locations", "attention_weights")


@dataclass(frozen=True)
class Rounding:
    """The unit round-offs of a claim: of arithmetic, of coordinates, and of the final result (0 if no coarser)."""

    arithmetic: float
    coordinates: float
    result: float
    floor: float

    @staticmethod
    def of(dtype: str, coordinates: str = "float32") -> Rounding:
        info = torch.finfo(TORCH_DTYPES[dtype])
        half = info.bits == 16
        arithmetic = torch.finfo(torch.float32).eps / 2 if half else info.eps / 2
        return Rounding(
            arithmetic=arithmetic,
            coordinates=info.eps / 2 if half and coordinates == "half" else arithmetic,
            result=info.eps / 2 if half else 0.0,
            floor=info.smallest_normal * info.eps if half else info.tiny,
        )

    @staticmethod
    def structural(dtype: str, coordinates: str = "float32") -> Rounding:
        """For clauses that are not about precision: half dtypes may compute in themselves, float64 in float32."""
        strict = Rounding.of(dtype, coordinates)
        coarsest = max(torch.finfo(TORCH_DTYPES[dtype]).eps, torch.finfo(torch.float32).eps) / 2
        return replace(
            strict,
            arithmetic=coarsest,
            coordinates=max(strict.coordinates, torch.finfo(torch.float32).eps / 2),
            floor=max(strict.floor, torch.finfo(TORCH_DTYPES[dtype]).smallest_normal, torch.finfo(torch.float32).tiny),
        )

    @staticmethod
    def coarse(dtype: str) -> Rounding:
        """Everything rounded to `dtype`, inputs and intermediates included, as under autocast."""
        info = torch.finfo(TORCH_DTYPES[dtype])
        return Rounding(info.eps / 2, info.eps / 2, info.eps / 2, info.tiny)


def oracle(case: Case, backward: bool = True) -> dict[str, Tensor]:
    """The reference in float64: "output", and "grad_<argument>" for the three floating arguments."""
    arguments = {name: case[name].clone() for name in ARGUMENTS}
    floating = {}
    for name, tensor in arguments.items():
        if tensor.is_floating_point():
            floating[name] = arguments[name] = tensor.double().requires_grad_(backward)
    output = ms_deform_attn(*arguments.values())
    results = {"output": output.detach()}
    if backward:
        gradients = torch.autograd.grad(output, list(floating.values()), case["grad_output"].double())
        results |= {f"grad_{name}": g for name, g in zip(floating, gradients, strict=True)}
    return results


def expectations(case: Case, rounding: Rounding, backward: bool = True) -> dict[str, Expectation]:
    """Right results and limits of a case: limit = k u S + u_result |ref|, with k = 4 + sqrt(number of terms)."""
    right = oracle(case, backward)
    limits = _Limits(case, rounding)
    result = {"output": _expect(right["output"], limits.output(), rounding)}
    if backward:
        result["grad_attention_weights"] = _expect(right["grad_attention_weights"], limits.grad_weights(), rounding)
        result["grad_value"] = _expect(right["grad_value"], limits.grad_value(), rounding)
        spread, interval = limits.grad_locations()
        reference = right["grad_sampling_locations"]
        low, high = torch.minimum(interval[0], reference), torch.maximum(interval[1], reference)
        limit = _limit(torch.maximum(low.abs(), high.abs()), spread, rounding)
        result["grad_sampling_locations"] = Expectation(reference, limit, torch.stack((low, high)))
    return result


def smooth_share(case: Case, rounding: Rounding) -> float:
    """The share of samples that are further from a kink than coordinates can be wrong."""
    near = _Limits(case, rounding).near_kink
    return 1.0 - float(near.double().mean()) if near.numel() else 1.0


def _expect(expected: Tensor, spread: Tensor, rounding: Rounding) -> Expectation:
    return Expectation(expected, _limit(expected.abs(), spread, rounding))


def _limit(size: Tensor, spread: Tensor, rounding: Rounding) -> Tensor:
    return spread + 1.001 * rounding.result * size + rounding.floor


class _Limits:
    """The four S of one case. Shapes: B, Q, M, L, P samples with 4 corners and D channels."""

    def __init__(self, case: Case, rounding: Rounding) -> None:
        self.rounding = rounding
        value, shapes = case["value"].double(), case["spatial_shapes"]
        self.batch, self.cells, self.heads, self.channels = value.shape
        self.weights = case["attention_weights"].double()
        samples = self.weights.shape
        self.size = shapes.flip(-1).double()[:, None, :].expand(*samples, 2)  # W, H
        image = torch.arange(self.batch)[:, None, None, None, None]
        self.first = (image * self.cells + case["level_start_index"][:, None]).expand(samples)  # cell of the level
        self.head = torch.arange(self.heads)[:, None, None].expand(samples)
        self.table = torch.nn.functional.pad(value.reshape(-1, self.channels), (0, 0, 0, 1))
        locations = case["sampling_locations"].double()
        self.pixels = locations * self.size - 0.5
        self.scale = (locations.abs() + 1) * self.size  # what a coordinate's rounding error is relative to
        self.wobble = 4 * rounding.coordinates * self.scale
        reaches = (self.pixels > -2) & (self.pixels < self.size + 1)
        self.near_kink = ((self.pixels - self.pixels.round()).abs() <= self.wobble) & reaches
        self.grad_output: Tensor | None = None
        if "grad_output" in case.tensors:
            b, q, _ = case["grad_output"].shape
            grad_output = case["grad_output"].double().view(b, q, self.heads, 1, 1, self.channels)
            self.grad_output = grad_output.expand(*samples, self.channels)

    @cached_property
    def here(self) -> _View:
        """All samples where they are."""
        return _View(self, self.pixels)

    @cached_property
    def moved(self) -> list[_View]:
        """The samples near a kink, moved to either side in x and y."""
        near = self.near_kink.any(-1)
        if not near.any():
            return []
        pixels, wobble = self.pixels[near], self.wobble[near]
        return [_View(self, pixels + wobble * torch.tensor((x, y)), near) for x in (-1, 1) for y in (-1, 1)]

    def extreme(
        self, of: Callable[[_View], Tensor], most: Callable[[Tensor, Tensor], Tensor] = torch.maximum
    ) -> Tensor:
        """The largest (or `most`) of what `of` says of a sample, over the places where it may be."""
        result = of(self.here)
        if self.moved:
            near = self.near_kink.any(-1)
            result = result.clone()
            result[near] = reduce(most, map(of, self.moved), result[near])
        return result

    def k(self, terms: Tensor | int) -> Tensor:
        return 4 + torch.as_tensor(terms, dtype=torch.float64).sqrt()

    def output(self) -> Tensor:
        a = self.weights.abs()[..., None]
        amount, moved = self.extreme(lambda v: v.magnitude), self.extreme(lambda v: v.movement)
        terms = self.weights.shape[-2] * self.weights.shape[-1] * 4
        return self._spread((a * amount).sum((-3, -2)), (a * moved).sum((-3, -2)), terms).flatten(2)

    def grad_weights(self) -> Tensor:
        amount = self.extreme(lambda v: (v.g.abs() * v.magnitude).sum(-1))
        moved = self.extreme(lambda v: (v.g.abs() * v.movement).sum(-1))
        return self._spread(amount, moved, 4 * self.channels)

    def grad_value(self) -> Tensor:
        amount = torch.zeros_like(self.table)
        moved = torch.zeros_like(self.table)
        count = torch.zeros(self.table.shape[0], dtype=torch.float64)
        for view in (self.here, *self.moved):
            index = view.index.flatten()
            weighted = view.weighted.abs()[..., None, :]
            scale_x, scale_y = view.of(self.scale).unbind(-1)
            along = view.share_y * scale_x[..., None] + view.share_x * scale_y[..., None]
            amount.index_add_(0, index, (weighted * view.share[..., None]).flatten(0, -2))
            moved.index_add_(0, index, (weighted * along[..., None]).flatten(0, -2))
            count.index_add_(0, index, torch.ones_like(index, dtype=torch.float64))
        spread = self._spread(amount, moved, count[:, None].expand_as(amount))
        return spread[:-1].view(self.batch, self.cells, self.heads, self.channels)

    def grad_locations(self) -> tuple[Tensor, Tensor]:
        """Limit, and the lowest and highest derivative on the sides of the kinks nearby."""
        limits, lows, highs = [], [], []
        twist = self.extreme(lambda v: (v.weighted.abs() * v.twist()).sum(-1))
        for axis in (0, 1):
            size, across = self.size[..., axis], self.scale[..., 1 - axis]
            amount = self.extreme(partial(_View.sum_of_steepness, axis=axis))
            limits.append(self._spread(size * amount, size * twist * across, 4 * self.channels))
            exact = partial(_View.sum_of_derivatives, axis=axis)
            lows.append(size * self.extreme(exact, torch.minimum))
            highs.append(size * self.extreme(exact))
        return torch.stack(limits, -1), torch.stack((torch.stack(lows, -1), torch.stack(highs, -1)))

    def _spread(self, amount: Tensor, moved: Tensor, terms: Tensor | int) -> Tensor:
        return self.k(terms) * (self.rounding.arithmetic * amount + self.rounding.coordinates * moved)


class _View:
    """Samples of a case at given pixel coordinates, all or the `chosen`: corners, shares, and sums over them."""

    def __init__(self, limits: _Limits, pixels: Tensor, chosen: Tensor | None = None) -> None:
        self._limits, self._chosen = limits, chosen
        self.size = self.of(limits.size)
        touches = ((pixels > -1) & (pixels < self.size)).all(-1)
        pixels = torch.where(touches[..., None], pixels, 0.0)
        corner = pixels.floor()
        fx, fy = (pixels - corner).unbind(-1)
        column, row = corner.long().unbind(-1)
        self.share_x = torch.stack((1 - fx, fx, 1 - fx, fx), -1) * touches[..., None]
        self.share_y = torch.stack((1 - fy, 1 - fy, fy, fy), -1) * touches[..., None]
        self.share = self.share_x * self.share_y
        self.index = torch.stack([self._row(row + i, column + j, touches) for i in (0, 1) for j in (0, 1)], -1)
        self.corners = limits.table[self.index]  # (samples, 4, D)

    def of(self, tensor: Tensor) -> Tensor:
        """What a tensor with an entry for every sample of the case says of the view's samples."""
        return tensor if self._chosen is None else tensor[self._chosen]

    def _row(self, i: Tensor, j: Tensor, touches: Tensor) -> Tensor:
        """Row of the table of values where cell (i, j) of each sample's level, image and head stands."""
        limits = self._limits
        width, height = self.size.long().unbind(-1)
        valid = touches & (i >= 0) & (i < height) & (j >= 0) & (j < width)
        cell = self.of(limits.first) + i * width + j
        return torch.where(valid, cell * limits.heads + self.of(limits.head), limits.table.shape[0] - 1)

    @cached_property
    def weighted(self) -> Tensor:
        """Attention weight times the gradient that arrives, (samples, D)."""
        return self.of(self._limits.weights)[..., None] * self.g

    @cached_property
    def g(self) -> Tensor:
        assert self._limits.grad_output is not None
        return self.of(self._limits.grad_output)

    @cached_property
    def magnitude(self) -> Tensor:
        """sum over corners of w |v|."""
        return (self.share[..., None] * self.corners.abs()).sum(-2)

    @cached_property
    def derivatives(self) -> tuple[Tensor, Tensor]:
        """d sample / d pixel coordinate, by x and by y."""
        v1, v2, v3, v4 = self.corners.unbind(-2)
        return self._along(0, v2 - v1, v4 - v3), self._along(1, v3 - v1, v4 - v2)

    @cached_property
    def movement(self) -> Tensor:
        """How far the sampled value moves when both coordinates are wrong by their own size."""
        scale = self.of(self._limits.scale)
        by_x, by_y = self.derivatives
        return by_x.abs() * scale[..., 0, None] + by_y.abs() * scale[..., 1, None]

    def sum_of_derivatives(self, axis: int) -> Tensor:
        return (self.weighted * self.derivatives[axis]).sum(-1)

    def sum_of_steepness(self, axis: int) -> Tensor:
        """The same with every term positive."""
        v1, v2, v3, v4 = self.corners.abs().unbind(-2)
        slope = self._along(axis, *((v1 + v2, v3 + v4) if axis == 0 else (v1 + v3, v2 + v4)))
        return (self.weighted.abs() * slope).sum(-1)

    def twist(self) -> Tensor:
        """|d2 sample / dx dy|."""
        v1, v2, v3, v4 = self.corners.unbind(-2)
        return (v4 - v3 - v2 + v1).abs()

    def _along(self, axis: int, first: Tensor, second: Tensor) -> Tensor:
        """Two differences along an axis, weighted by their shares across it."""
        share, other = (self.share_y, 2) if axis == 0 else (self.share_x, 1)
        return share[..., 0, None] * first + share[..., other, None] * second
