"""Oracle and limits of `ms_deform_attn`, as derived in spec chapter 1, "What a verdict compares".

The reference in float64 gives the right numbers. How far a right implementation may be from them follows from the
first-order effect of rounding: S = sum of |dy/dt| |t| over inputs and intermediates t, written out here for the
output and each gradient.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

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
        self.size = shapes.flip(-1).double()[:, None, :]  # (level, 1, 2): W, H
        self.shapes, self.starts = shapes, case["level_start_index"]
        self.table = torch.nn.functional.pad(value.reshape(-1, self.channels), (0, 0, 0, 1))
        locations = case["sampling_locations"].double()
        self.pixels = locations * self.size - 0.5
        self.scale = (locations.abs() + 1) * self.size  # what a coordinate's rounding error is relative to
        self.wobble = 4 * rounding.coordinates * self.scale
        reaches = (self.pixels > -2) & (self.pixels < self.size + 1)
        self.near_kink = ((self.pixels - self.pixels.round()).abs() <= self.wobble) & reaches
        self.grad_output = None
        if "grad_output" in case.tensors:
            b, q, _ = case["grad_output"].shape
            self.grad_output = case["grad_output"].double().view(b, q, self.heads, 1, 1, self.channels)

    @cached_property
    def views(self) -> list[_View]:
        """The samples where they are, and, if one is near a kink, moved to either side in x and y."""
        moves = [(0, 0)]
        if self.near_kink.any():
            moves += [(x, y) for x in (-1, 1) for y in (-1, 1)]
        return [_View(self, self.pixels + self.wobble * torch.tensor(move)) for move in moves]

    def k(self, terms: Tensor | int) -> Tensor:
        return 4 + torch.as_tensor(terms, dtype=torch.float64).sqrt()

    def output(self) -> Tensor:
        views = self.views
        amount = torch.stack([v.magnitude() for v in views]).amax(0)
        slope_x = torch.stack([v.slope(0) for v in views]).amax(0)
        slope_y = torch.stack([v.slope(1) for v in views]).amax(0)
        a = self.weights.abs()[..., None]
        terms = self.weights.shape[-2] * self.weights.shape[-1] * 4
        spread = self._spread(
            (a * amount).sum((-3, -2)), (a * (slope_x * self.cx + slope_y * self.cy)).sum((-3, -2)), terms
        )
        return spread.flatten(2)

    def grad_weights(self) -> Tensor:
        g = self._g().abs()
        views = self.views
        amount = torch.stack([(g * v.magnitude()).sum(-1) for v in views]).amax(0)
        moved = torch.stack([(g * (v.slope(0) * self.cx + v.slope(1) * self.cy)).sum(-1) for v in views]).amax(0)
        return self._spread(amount, moved, 4 * self.channels)

    def grad_value(self) -> Tensor:
        a, g = self.weights.abs()[..., None, None], self._g().abs()[..., None, :]
        amount = torch.zeros_like(self.table)
        moved = torch.zeros_like(self.table)
        count = torch.zeros(self.table.shape[0], dtype=torch.float64)
        for view in self.views:
            index = view.index.flatten()
            share = view.share[..., None]
            along = (view.share_y * self.scale[..., 0, None] + view.share_x * self.scale[..., 1, None])[..., None]
            amount.index_add_(0, index, (a * g * share).flatten(0, -2))
            moved.index_add_(0, index, (a * g * along).flatten(0, -2))
            count.index_add_(0, index, torch.ones_like(index, dtype=torch.float64))
        spread = self._spread(amount, moved, count[:, None].expand_as(amount))
        return spread[:-1].view(self.batch, self.cells, self.heads, self.channels)

    def grad_locations(self) -> tuple[Tensor, Tensor]:
        """Limit, and the lowest and highest derivative on the sides of the kinks nearby."""
        a, g = self.weights[..., None], self._g()
        limits, lows, highs = [], [], []
        views = self.views
        for axis in (0, 1):
            exact = [self.size[..., axis] * (a * g * v.derivative(axis)).sum(-1) for v in views]
            amount = torch.stack(
                [self.size[..., axis] * (a * g).abs().mul(v.steepness(axis)).sum(-1) for v in views]
            ).amax(0)
            twist = torch.stack([self.size[..., axis] * (a * g).abs().mul(v.twist()).sum(-1) for v in views]).amax(0)
            limits.append(self._spread(amount, twist * self.scale[..., 1 - axis], 4 * self.channels))
            lows.append(torch.stack(exact).amin(0))
            highs.append(torch.stack(exact).amax(0))
        return torch.stack(limits, -1), torch.stack((torch.stack(lows, -1), torch.stack(highs, -1)))

    @property
    def cx(self) -> Tensor:
        return self.scale[..., 0, None]

    @property
    def cy(self) -> Tensor:
        return self.scale[..., 1, None]

    def _g(self) -> Tensor:
        assert self.grad_output is not None
        return self.grad_output

    def _spread(self, amount: Tensor, moved: Tensor, terms: Tensor | int) -> Tensor:
        return self.k(terms) * (self.rounding.arithmetic * amount + self.rounding.coordinates * moved)


class _View:
    """The samples of a case at given pixel coordinates: corners, shares, and sums over them."""

    def __init__(self, limits: _Limits, pixels: Tensor) -> None:
        width, height = limits.size.unbind(-1)
        touches = ((pixels > -1) & (pixels < limits.size)).all(-1)
        pixels = torch.where(touches[..., None], pixels, 0.0)
        corner = pixels.floor()
        fx, fy = (pixels - corner).unbind(-1)
        column, row = corner.long().unbind(-1)
        self.share_x = torch.stack((1 - fx, fx, 1 - fx, fx), -1) * touches[..., None]
        self.share_y = torch.stack((1 - fy, 1 - fy, fy, fy), -1) * touches[..., None]
        self.share = self.share_x * self.share_y
        image = torch.arange(limits.batch)[:, None, None, None, None] * limits.cells
        head = torch.arange(limits.heads)[:, None, None]
        index = []
        for down, across in ((0, 0), (0, 1), (1, 0), (1, 1)):
            i, j = row + down, column + across
            valid = touches & (i >= 0) & (i < height) & (j >= 0) & (j < width)
            cell = image + limits.starts[:, None] + i * limits.shapes[:, 1, None] + j
            index.append(torch.where(valid, cell * limits.heads + head, limits.table.shape[0] - 1))
        self.index = torch.stack(index, -1)
        self.corners = limits.table[self.index]  # (B, Q, M, L, P, 4, D)

    def magnitude(self) -> Tensor:
        """sum over corners of w |v|."""
        return (self.share[..., None] * self.corners.abs()).sum(-2)

    def derivative(self, axis: int) -> Tensor:
        """d sample / d pixel coordinate: axis 0 is x, 1 is y."""
        v1, v2, v3, v4 = self.corners.unbind(-2)
        near, far = (self.share_y, ((v2 - v1), (v4 - v3))) if axis == 0 else (self.share_x, ((v3 - v1), (v4 - v2)))
        return self._along(near, axis, *far)

    def slope(self, axis: int) -> Tensor:
        return self.derivative(axis).abs()

    def steepness(self, axis: int) -> Tensor:
        """The same with every term positive."""
        v1, v2, v3, v4 = self.corners.abs().unbind(-2)
        return self._along(*((self.share_y, 0, v1 + v2, v3 + v4) if axis == 0 else (self.share_x, 1, v1 + v3, v2 + v4)))

    def twist(self) -> Tensor:
        """|d2 sample / dx dy|."""
        v1, v2, v3, v4 = self.corners.unbind(-2)
        return (v4 - v3 - v2 + v1).abs()

    @staticmethod
    def _along(share: Tensor, axis: int, first: Tensor, second: Tensor) -> Tensor:
        other = 2 if axis == 0 else 1  # the corner that holds the second share across the axis
        return share[..., 0, None] * first + share[..., other, None] * second
