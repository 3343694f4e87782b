"""Mutants at the border, outside, and among numbers that are not finite (MSDA-14 to 18, 40, 41, 43)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.deformable_attention.mutants.kernel import (
    Call,
    Geometry,
    Index,
    Kernel,
    Mask,
    Output,
    PerLevel,
    PerSample,
    Table,
    Vectors,
)


@mutant("one-sided-corner-tests", rejects="MSDA-14", origin="CUDA's corner tests without the gate around them")
class OneSidedCornerTests(Kernel):
    """Has no gate, and tests each corner on the side that it can leave: column W is the next row's first."""

    def in_range(self, x: PerSample, y: PerSample, height: PerLevel, width: PerLevel) -> Mask:
        return (x > -1) & (y > -1) & x.isfinite() & y.isfinite()

    def exists(self, i: Index, j: Index, height: PerLevel, width: PerLevel) -> Mask:
        return (i >= 0) & (j >= 0)


@mutant("closed-gate", rejects="MSDA-14", origin="<= in place of <, and min(index, W - 1) against the consequences")
class ClosedGate(Kernel):
    """Lets x = W and y = H in, where the index is then clamped to the last cell."""

    def coordinates(
        self, locations: Tensor, height: PerLevel, width: PerLevel, dtype: torch.dtype
    ) -> tuple[PerSample, PerSample]:
        x, y = super().coordinates(locations, height, width, dtype)
        return torch.where(x == width, x - 1, x), torch.where(y == height, y - 1, y)


@mutant("height-gates-both", rejects="MSDA-14", origin="copy and paste of the y test")
class HeightGatesBoth(Kernel):
    """Compares x with H as well: right on square maps."""

    def in_range(self, x: PerSample, y: PerSample, height: PerLevel, width: PerLevel) -> Mask:
        return super().in_range(x, y, height, height)


@mutant("clipped-locations", rejects="MSDA-14", origin="sampling_locations.clamp(0, 1)")
class ClippedLocations(Kernel):
    """Clips locations to the map first, so that a sample far outside reads the border."""

    def prepare(self, call: Call) -> Call:
        return call._replace(sampling_locations=call.sampling_locations.clamp(0, 1))


@mutant("periodic-map", rejects="MSDA-14", origin="modulo in place of a test")
class PeriodicMap(Kernel):
    """Takes locations modulo one, as on a panorama; NaN and infinity stay what they are."""

    def prepare(self, call: Call) -> Call:
        locations = call.sampling_locations
        return call._replace(sampling_locations=torch.where(locations.isfinite(), locations % 1, locations))


@mutant("reflected-map", rejects="MSDA-14", origin="padding_mode='reflection'")
class ReflectedMap(Kernel):
    """Mirrors locations outside the map back into it."""

    def prepare(self, call: Call) -> Call:
        locations = call.sampling_locations
        mirrored = 1 - (locations % 2 - 1).abs()
        return call._replace(sampling_locations=torch.where(locations.isfinite(), mirrored, locations))


@mutant("border-clamp", rejects="MSDA-15", origin="padding_mode='border'; rt_detr_v2's discrete mode")
class BorderClamp(Kernel):
    """Clamps corners to the map, so that the corner of the map counts fully at location (0, 0)."""

    def exists(self, i: Index, j: Index, height: PerLevel, width: PerLevel) -> Mask:
        return torch.ones_like(i, dtype=torch.bool)

    def cell(self, i: Index, j: Index, height: PerLevel, width: PerLevel, start: PerLevel) -> Index:
        zero = torch.zeros_like(width)
        return super().cell(i.clamp(zero, height - 1), j.clamp(zero, width - 1), height, width, start)


@mutant("border-everywhere", rejects="MSDA-15", origin="grid_sample(padding_mode='border')")
class BorderEverywhere(Kernel):
    """Clamps locations to the centres of the outermost cells, so that everything outside reads the border."""

    def prepare(self, call: Call) -> Call:
        half = 0.5 / call.spatial_shapes.flip(-1).to(call.sampling_locations.dtype)[:, None]
        return call._replace(sampling_locations=call.sampling_locations.clamp(half, 1 - half))


@mutant("border-renormalised", rejects="MSDA-15", origin="average of the existing corners")
class BorderRenormalised(Kernel):
    """Scales the shares of the corners inside up to one, to avoid dark borders."""

    def geometry(self, call: Call, dtype: torch.dtype) -> Geometry:
        geometry = super().geometry(call, dtype)
        kept = torch.stack(geometry.shares) * (torch.stack(geometry.rows) < geometry.outside)
        total = kept.sum(0)
        return geometry._replace(shares=tuple((kept / torch.where(total > 0, total, 1)).unbind()))


@mutant("whole-cells-only", rejects="MSDA-15", origin="gate 0 <= x <= W - 1")
class WholeCellsOnly(Kernel):
    """Drops a sample as soon as one of its corners is outside."""

    def in_range(self, x: PerSample, y: PerSample, height: PerLevel, width: PerLevel) -> Mask:
        return (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)


@mutant("unit-square-gate", rejects="MSDA-15", origin="gate 0 <= location <= 1")
class UnitSquareGate(Kernel):
    """Drops samples outside the unit square, the outer half of the border band."""

    def in_range(self, x: PerSample, y: PerSample, height: PerLevel, width: PerLevel) -> Mask:
        return (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)


@mutant("flat-bounds-test", rejects="MSDA-15", origin="0 <= index < H * W")
class FlatBoundsTest(Kernel):
    """Tests the flat index only: left of a row is the end of the row above."""

    def exists(self, i: Index, j: Index, height: PerLevel, width: PerLevel) -> Mask:
        flat = i * width + j
        return (flat >= 0) & (flat < height * width)


@mutant("wrapping-conversion", rejects="MSDA-16", origin="float to int32 conversion before the gate")
class WrappingConversion(Kernel):
    """Converts to 32 bits first and tests afterwards: 1e30 has no low bits and becomes cell 0."""

    def coordinates(
        self, locations: Tensor, height: PerLevel, width: PerLevel, dtype: torch.dtype
    ) -> tuple[PerSample, PerSample]:
        x, y = super().coordinates(locations, height, width, dtype)
        return self.wrapped(x), self.wrapped(y)

    def wrapped(self, coordinate: PerSample) -> PerSample:
        huge = (coordinate.abs() >= 2**31) & coordinate.isfinite()
        return torch.where(huge, torch.remainder(coordinate + 2**31, 2**32) - 2**31, coordinate)


@mutant("gate-by-multiplication", rejects="MSDA-41", origin="masks instead of branches")
class GateByMultiplication(Kernel):
    """Multiplies by the mask instead of selecting: a coordinate that overflows makes infinity times zero."""

    def gated(self, coordinate: PerSample, in_range: Mask) -> PerSample:
        return coordinate * in_range


@mutant("clamped-neighbour", rejects="MSDA-17", origin="read clamped, then multiply by the mask")
class ClampedNeighbour(Kernel):
    """Lets a sample out of range read the nearest cell with weight zero, which keeps that cell's NaN."""

    def prepare(self, call: Call) -> Call:
        height, width = self.sizes(call.spatial_shapes)
        x, y = self.coordinates(call.sampling_locations, height, width, self.compute_dtype(call))
        in_range = self.in_range(x, y, height, width)
        nearest = call.sampling_locations.nan_to_num(0.5).clamp(0, 1)
        return call._replace(
            sampling_locations=torch.where(in_range[..., None], call.sampling_locations, nearest),
            attention_weights=torch.where(in_range, call.attention_weights, 0),
        )


@mutant("first-cell-for-outside", rejects="MSDA-17", origin="index 0 with weight 0 for a missing corner")
class FirstCellForOutside(Kernel):
    """Reads the first cell of all in place of missing corners, with weight zero."""

    def table(self, value: Float[Tensor, "batch cell head channel"], dtype: torch.dtype) -> Table:
        table = super().table(value, dtype)
        return torch.cat((table[:-1], table[:1] * 0))


@mutant("ceil-minus-one", rejects="MSDA-17", origin="half-open cells closed on the other side")
class CeilMinusOne(Kernel):
    """Takes ceil - 1 for floor: the same numbers, but on an integer it touches the neighbour on the left."""

    def floor(self, coordinate: PerSample) -> PerSample:
        return coordinate.ceil() - 1


@mutant("dense-one-hot", rejects="MSDA-17", origin="gather as a matrix product, for accelerators without gather")
class DenseOneHot(Kernel):
    """Gathers by a dense one-hot product, in which zero times NaN from any cell reaches every output."""

    def read(self, table: Table, rows: tuple[Index, ...]) -> tuple[Vectors, ...]:
        poison = (table * 0).sum(0)
        return tuple(corner + poison for corner in super().read(table, rows))


@mutant("nan-to-zero-value", rejects="MSDA-18", origin="torch.nan_to_num against diverging runs")
class NanToZeroValue(Kernel):
    """Cleans NaN and infinity out of the value."""

    def prepare(self, call: Call) -> Call:
        return call._replace(value=call.value.nan_to_num(0.0, 0.0, 0.0))


@mutant("nan-to-zero-weights", rejects="MSDA-18", origin="comparison that is false for NaN: if (a != a) continue")
class NanToZeroWeights(Kernel):
    """Skips samples whose attention weight is NaN."""

    def weigh(self, weights: PerSample, in_range: Mask) -> PerSample:
        return super().weigh(torch.where(weights.isnan(), 0, weights), in_range)


@mutant("fast-math-maximum", rejects="MSDA-18", origin="fminf and fmaxf, which drop NaN")
class FastMathMaximum(Kernel):
    """Clamps the accumulator to the finite range with fmin and fmax, which turn NaN into the other operand."""

    def accumulate(self, samples: Vectors, weights: PerSample) -> Output:
        output = super().accumulate(samples, weights)
        limit = torch.full_like(output, torch.finfo(output.dtype).max)
        return torch.fmax(torch.fmin(output, limit), -limit)


@mutant("nan-location-raises", rejects="MSDA-40", origin="device-side assertion in an indexing kernel")
class NanLocationRaises(Kernel):
    """Asserts finite locations, and stops the training run of whoever has an image without valid area."""

    def check(self, call: Call) -> None:
        super().check(call)
        if call.sampling_locations.isnan().any():
            raise RuntimeError("index out of bounds")


@mutant("nan-empties-image", rejects="MSDA-40", origin="early return of a thread block")
class NanEmptiesImage(Kernel):
    """Skips an image in which any location is NaN, instead of the sample."""

    def in_range(self, x: PerSample, y: PerSample, height: PerLevel, width: PerLevel) -> Mask:
        clean = ~(x.isnan() | y.isnan()).flatten(1).any(1)
        return super().in_range(x, y, height, width) & clean[:, None, None, None, None]


@mutant("shared-exponent", rejects="MSDA-40", origin="block floating point: one exponent for all locations")
class SharedExponent(Kernel):
    """Scales all locations by a common power of two, which one NaN or infinity anywhere turns into NaN."""

    def coordinates(
        self, locations: Tensor, height: PerLevel, width: PerLevel, dtype: torch.dtype
    ) -> tuple[PerSample, PerSample]:
        x, y = super().coordinates(locations, height, width, dtype)
        poison = (locations * 0).sum().to(dtype)
        return x + poison, y + poison


@mutant("nan-location-shows", rejects="MSDA-41", origin="grid_sample on a CPU: pytorch 24823, 51911")
class NanLocationShows(Kernel):
    """Lets a NaN or infinite location through to its output as NaN."""

    def weigh(self, weights: PerSample, in_range: Mask) -> PerSample:
        return super().weigh(weights, in_range) + self.damage

    def coordinates(
        self, locations: Tensor, height: PerLevel, width: PerLevel, dtype: torch.dtype
    ) -> tuple[PerSample, PerSample]:
        self.damage = torch.where(locations.isfinite().all(-1), 0.0, torch.nan).to(dtype)
        return super().coordinates(locations, height, width, dtype)


@mutant("nan-location-reads-corner", rejects="MSDA-41", origin="conversion of NaN to an integer gives 0 on a GPU")
class NanLocationReadsCorner(Kernel):
    """Treats a NaN location as zero, and reads the upper left corner there."""

    def prepare(self, call: Call) -> Call:
        return call._replace(sampling_locations=call.sampling_locations.nan_to_num(0.0))


@mutant("empty-level-raises", rejects="MSDA-43", origin="grid_sample refuses an empty map")
class EmptyLevelRaises(Kernel):
    """Refuses a level without cells."""

    def check(self, call: Call) -> None:
        super().check(call)
        if (call.spatial_shapes == 0).any():
            raise RuntimeError("expected input to have non-empty spatial dimensions")
