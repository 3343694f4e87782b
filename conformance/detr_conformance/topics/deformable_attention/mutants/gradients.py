"""Mutants with a right forward and wrong gradients (MSDA-27 to MSDA-35)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.deformable_attention.mutants.kernel import (
    Call,
    Geometry,
    Gradients,
    Kernel,
    Needs,
    PerSample,
    Table,
    Vectors,
)
from detr_conformance.topics.deformable_attention.mutants.precision import HALF, ClaimedDtypeKernel, tf32, truncated

LocationGradient = Float[Tensor, "batch query head level point 2"]
ValueGradient = Float[Tensor, "batch cell head channel"]


@mutant("weight-gradient-weighted", rejects="MSDA-27", origin="the weighted sample reused in backward")
class WeightGradientWeighted(Kernel):
    """Keeps the attention weight in its own gradient."""

    def grad_weights(self, grad: Tensor, samples: Vectors, geometry: Geometry, weights: PerSample) -> PerSample:
        return super().grad_weights(grad, samples, geometry, weights) * weights


@mutant("weight-gradient-through-softmax", rejects="MSDA-27", origin="backward fused with the softmax before it")
class WeightGradientThroughSoftmax(Kernel):
    """Subtracts the weighted mean, which belongs to the softmax's backward and is done again there."""

    def grad_weights(self, grad: Tensor, samples: Vectors, geometry: Geometry, weights: PerSample) -> PerSample:
        direct = super().grad_weights(grad, samples, geometry, weights)
        return direct - (direct * weights).sum((3, 4), keepdim=True)


@mutant("stored-not-added", rejects="MSDA-28", origin="a store in place of atomicAdd")
class StoredNotAdded(Kernel):
    """Writes a cell's gradient instead of adding to it: the last sample wins."""

    def scatter(self, table: Table, rows: Int[Tensor, " update"], updates: Float[Tensor, "update channel"]) -> None:
        table[rows] = updates


@mutant("duplicates-in-warp-lost", rejects="MSDA-28", origin="conflicting lanes of a warp, without atomics")
class DuplicatesInWarpLost(Kernel):
    """Loses an update if the next point of the same query hits the same cell."""

    def grad_value(self, grad: Tensor, geometry: Geometry, weights: PerSample, call: Call) -> ValueGradient:
        rows = torch.stack(geometry.rows)
        lost = torch.zeros_like(rows, dtype=torch.bool)
        lost[..., :-1] = rows[..., :-1] == rows[..., 1:]
        kept = geometry._replace(rows=tuple(torch.where(lost, geometry.outside, rows).unbind()))
        return super().grad_value(grad, kept, weights, call)


@mutant("location-gradient-in-cells", rejects="MSDA-29", origin="d/dx handed out as d/d location")
class LocationGradientInCells(Kernel):
    """Leaves the factors W and H out."""

    def grad_locations(
        self, grad: Tensor, corners: tuple[Vectors, ...], geometry: Geometry, weights: PerSample
    ) -> LocationGradient:
        one = torch.ones_like(geometry.width)
        return super().grad_locations(grad, corners, geometry._replace(width=one, height=one), weights)


@mutant("location-gradient-sizes-swapped", rejects="MSDA-29", origin="W and H exchanged in backward alone")
class LocationGradientSizesSwapped(Kernel):
    """Multiplies the x gradient by H and the y gradient by W: right on square maps."""

    def grad_locations(
        self, grad: Tensor, corners: tuple[Vectors, ...], geometry: Geometry, weights: PerSample
    ) -> LocationGradient:
        swapped = geometry._replace(width=geometry.height, height=geometry.width)
        return super().grad_locations(grad, corners, swapped, weights)


@mutant("location-gradient-unweighted", rejects="MSDA-29", origin="attention weight forgotten")
class LocationGradientUnweighted(Kernel):
    """Leaves the attention weight out of the location gradient."""

    def grad_locations(
        self, grad: Tensor, corners: tuple[Vectors, ...], geometry: Geometry, weights: PerSample
    ) -> LocationGradient:
        return super().grad_locations(grad, corners, geometry, torch.ones_like(weights))


@mutant("location-gradient-doubled", rejects="MSDA-29", origin="grid_sample's grid is 2 * location - 1")
class LocationGradientDoubled(Kernel):
    """Keeps the factor of two of grid_sample's coordinates."""

    def grad_locations(
        self, grad: Tensor, corners: tuple[Vectors, ...], geometry: Geometry, weights: PerSample
    ) -> LocationGradient:
        return super().grad_locations(grad, corners, geometry, weights) * 2


@mutant("location-gradient-y-first", rejects="MSDA-29", origin="loop over (h, w) in backward")
class LocationGradientYFirst(Kernel):
    """Returns the location gradient as (y, x)."""

    def grad_locations(
        self, grad: Tensor, corners: tuple[Vectors, ...], geometry: Geometry, weights: PerSample
    ) -> LocationGradient:
        return super().grad_locations(grad, corners, geometry, weights).flip(-1)


@mutant("slope-at-cell-middle", rejects="MSDA-29", origin="central difference of the map, stored beforehand")
class SlopeAtCellMiddle(Kernel):
    """Takes the slope along x in the middle of the cell, whatever fy."""

    def slopes(self, corners: tuple[Vectors, ...], geometry: Geometry) -> tuple[Vectors, Vectors]:
        middle = torch.full_like(geometry.fx, 0.5)
        return super().slopes(corners, geometry._replace(fx=middle, fy=middle))


@mutant("border-clamp-in-backward", rejects="MSDA-30", origin="two kernels, one of them with border padding")
class BorderClampInBackward(Kernel):
    """Has the gradients of the clamped location: a weight outside the map learns from the border."""

    def backward(self, call: Call, grad_output: Tensor, needs: Needs) -> Gradients:
        outside = call.sampling_locations.nan_to_num(0.5)
        return super().backward(call._replace(sampling_locations=outside.clamp(0, 1)), grad_output, needs)


@mutant("value-gradient-outside", rejects="MSDA-30", origin="clamped index in the scatter")
class ValueGradientOutside(Kernel):
    """Adds the share of a missing corner to the corner that exists."""

    def grad_value(self, grad: Tensor, geometry: Geometry, weights: PerSample, call: Call) -> ValueGradient:
        nearest = torch.stack(geometry.rows).amin(0)
        clamped = tuple(torch.where(row == geometry.outside, nearest, row) for row in geometry.rows)
        return super().grad_value(grad, geometry._replace(rows=clamped), weights, call)


@mutant("border-slope-replicated", rejects="MSDA-30", origin="missing corners replicated in backward")
class BorderSlopeReplicated(Kernel):
    """Takes a missing corner for a copy of the mean of the others, so that the border looks flat."""

    def slopes(self, corners: tuple[Vectors, ...], geometry: Geometry) -> tuple[Vectors, Vectors]:
        exists = (torch.stack(geometry.rows) < geometry.outside)[..., None]
        values = torch.stack(corners)
        mean = torch.where(exists, values, 0).sum(0) / exists.sum(0).clamp(min=1)
        return super().slopes(tuple(torch.where(exists, values, mean).unbind()), geometry)


@mutant("straight-through-clamp", rejects="MSDA-30", origin="custom backward of a clamp, to keep gradients alive")
class StraightThroughClamp(Kernel):
    """Pulls locations outside back to the map with an invented gradient."""

    def grad_locations(
        self, grad: Tensor, corners: tuple[Vectors, ...], geometry: Geometry, weights: PerSample
    ) -> LocationGradient:
        inside = super().grad_locations(grad, corners, geometry, weights)
        return torch.where(geometry.in_range[..., None], inside, 1e-4)


@mutant("dead-samples-skipped", rejects="MSDA-31", origin="if (weight == 0) continue, in forward and backward")
class DeadSamplesSkipped(Kernel):
    """Skips samples of weight zero in backward too, so that they never come back to life."""

    def grad_weights(self, grad: Tensor, samples: Vectors, geometry: Geometry, weights: PerSample) -> PerSample:
        return torch.where(weights == 0, 0, super().grad_weights(grad, samples, geometry, weights))


@mutant("weight-gradient-by-division", rejects="MSDA-31", origin="stored contributions divided by their weight")
class WeightGradientByDivision(Kernel):
    """Recovers g . s from the stored contribution a * s by dividing by a."""

    def grad_weights(self, grad: Tensor, samples: Vectors, geometry: Geometry, weights: PerSample) -> PerSample:
        contribution = super().grad_weights(grad, samples, geometry, weights) * weights
        return torch.where(geometry.in_range, contribution / weights, 0)


@mutant("zero-weight-lifted", rejects="MSDA-31", origin="weights.clamp(min=eps) before the backward")
class ZeroWeightLifted(Kernel):
    """Replaces weights of zero by 1e-4 in the value gradient, to keep cells alive."""

    def grad_value(self, grad: Tensor, geometry: Geometry, weights: PerSample, call: Call) -> ValueGradient:
        return super().grad_value(grad, geometry, torch.where(weights == 0, 1e-4, weights), call)


@mutant("both-sides-of-kink", rejects="MSDA-32", origin="left and right derivative added on ties")
class BothSidesOfKink(Kernel):
    """Counts a kink twice, once from each cell that it belongs to."""

    def grad_locations(
        self, grad: Tensor, corners: tuple[Vectors, ...], geometry: Geometry, weights: PerSample
    ) -> LocationGradient:
        ties = 1 + (torch.stack((geometry.fx, geometry.fy), -1) == 0).to(weights.dtype)
        return super().grad_locations(grad, corners, geometry, weights) * ties


@mutant("hat-function-kink", rejects="MSDA-32", origin="shares as relu(1 - |x - j|), differentiated by autograd")
class HatFunctionKink(Kernel):
    """Has slope zero on a kink: the derivative of |x| at 0 is taken for 0, which need not lie between the sides."""

    def slopes(self, corners: tuple[Vectors, ...], geometry: Geometry) -> tuple[Vectors, Vectors]:
        along_x, along_y = super().slopes(corners, geometry)
        on_x, on_y = (geometry.fx == 0)[..., None], (geometry.fy == 0)[..., None]
        return torch.where(on_x, 0, along_x), torch.where(on_y, 0, along_y)


@mutant("nan-on-kink", rejects="MSDA-32", origin="derivative of |d| as d / |d|")
class NanOnKink(Kernel):
    """Divides zero by zero on integer coordinates."""

    def grad_locations(
        self, grad: Tensor, corners: tuple[Vectors, ...], geometry: Geometry, weights: PerSample
    ) -> LocationGradient:
        sign = torch.stack((geometry.fx / geometry.fx, geometry.fy / geometry.fy), -1)
        inside = super().grad_locations(grad, corners, geometry, weights)
        return torch.where(geometry.in_range[..., None], inside * sign, 0)


@mutant("fractions-saved-in-half", rejects="MSDA-33", origin="activations stored in bfloat16 to save memory")
class FractionsSavedInHalf(Kernel):
    """Keeps the fractions for backward in bfloat16."""

    def slopes(self, corners: tuple[Vectors, ...], geometry: Geometry) -> tuple[Vectors, Vectors]:
        fx, fy = (fraction.bfloat16().to(fraction.dtype) for fraction in (geometry.fx, geometry.fy))
        return super().slopes(corners, geometry._replace(fx=fx, fy=fy))


@mutant("value-gradient-tf32", rejects="MSDA-33", origin="scatter as a tensor-core product")
class ValueGradientTf32(Kernel):
    """Multiplies the incoming gradient with ten bits of mantissa on its way to the value."""

    def grad_value(self, grad: Tensor, geometry: Geometry, weights: PerSample, call: Call) -> ValueGradient:
        return super().grad_value(tf32(grad), geometry, weights, call)


@mutant("finite-difference-slope", rejects="MSDA-33", origin="numerical differentiation where no backward exists")
class FiniteDifferenceSlope(Kernel):
    """Gets the slope from a difference quotient with a step of 2^-8 cells, and with its cancellation."""

    def slopes(self, corners: tuple[Vectors, ...], geometry: Geometry) -> tuple[Vectors, Vectors]:
        step, fx, fy = 2.0**-8, geometry.fx, geometry.fy
        here, right, below = (
            self.interpolate(corners, self.shares(*at)) for at in ((fx, fy), (fx + step, fy), (fx, fy + step))
        )
        return (right - here) / step, (below - here) / step


@mutant("atomics-in-half", rejects="MSDA-34", origin="atomicAdd on __half2: mmcv 2011, 2878")
class AtomicsInHalf(ClaimedDtypeKernel):
    """Accumulates the value gradient in the claimed dtype, where small terms no longer count."""

    def scatter(self, table: Table, rows: Int[Tensor, " update"], updates: Float[Tensor, "update channel"]) -> None:
        half = table.to(self.claimed)
        half.index_add_(0, rows, updates.to(self.claimed))
        table.copy_(half)


@mutant("weight-gradient-in-half", rejects="MSDA-34", origin="warp reduction in the claimed dtype")
class WeightGradientInHalf(ClaimedDtypeKernel):
    """Adds the products over channels up in the claimed dtype."""

    def grad_weights(self, grad: Tensor, samples: Vectors, geometry: Geometry, weights: PerSample) -> PerSample:
        total = torch.zeros_like(samples[..., 0])
        for product in (grad * samples).unbind(-1):
            total = (total + product).to(self.claimed).to(total.dtype)
        return torch.where(geometry.in_range, total, 0)


@mutant("location-gradient-in-half", rejects="MSDA-34", origin="per-channel slopes rounded before the reduction")
class LocationGradientInHalf(ClaimedDtypeKernel):
    """Rounds the slope of each channel to the claimed dtype before the sum over channels."""

    def slopes(self, corners: tuple[Vectors, ...], geometry: Geometry) -> tuple[Vectors, Vectors]:
        along_x, along_y = (slope.to(self.claimed).to(slope.dtype) for slope in super().slopes(corners, geometry))
        return along_x, along_y


@mutant("truncated-gradients", rejects="MSDA-35", origin="float32 to bfloat16 by a shift, in backward alone")
class TruncatedGradients(Kernel):
    """Cuts the lower bits off the half gradient of the value instead of rounding it."""

    def grad_value(self, grad: Tensor, geometry: Geometry, weights: PerSample, call: Call) -> ValueGradient:
        gradient = super().grad_value(grad, geometry, weights, call)
        return truncated(gradient, call.value.dtype) if call.value.dtype in HALF else gradient


@mutant("reciprocal-sizes-in-backward", rejects="MSDA-35", origin="1 / (1 / W), the reciprocal computed for forward")
class ReciprocalSizesInBackward(Kernel):
    """Multiplies by 1 / (1 / W + 1e-8), the guarded reciprocal of a normaliser, instead of W."""

    def grad_locations(
        self, grad: Tensor, corners: tuple[Vectors, ...], geometry: Geometry, weights: PerSample
    ) -> LocationGradient:
        width, height = (1 / (1 / size.to(grad.dtype) + 1e-8) for size in (geometry.width, geometry.height))
        return super().grad_locations(grad, corners, geometry._replace(width=width, height=height), weights)
