"""Mutants of the way from a location to cells and shares (MSDA-11 to MSDA-13, MSDA-23, MSDA-26)."""

from __future__ import annotations

import torch
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.deformable_attention.mutants.kernel import (
    Call,
    Geometry,
    Index,
    Kernel,
    PerLevel,
    PerSample,
)


@mutant("no-half-cell", rejects="MSDA-11", origin="pixel coordinates of integer cells")
class NoHalfCell(Kernel):
    """Leaves out the half: location * size, as if a cell's centre were its corner."""

    def pixel(self, location: PerSample, size: PerLevel) -> PerSample:
        return location * size


@mutant("align-corners", rejects="MSDA-11", origin="grid_sample(align_corners=True)")
class AlignCorners(Kernel):
    """Stretches the map so that locations 0 and 1 are the centres of the outermost cells."""

    def pixel(self, location: PerSample, size: PerLevel) -> PerSample:
        return location * (size - 1)


@mutant("integer-half-size", rejects="MSDA-11", origin="(2 * loc - 1) * (W // 2) + ...")
class IntegerHalfSize(Kernel):
    """Undoes grid_sample's [-1, 1] with an integer W // 2: half a cell off where W is odd."""

    def pixel(self, location: PerSample, size: PerLevel) -> PerSample:
        return (2 * location - 1) * (size / 2) + torch.div(size, 2, rounding_mode="floor") - 0.5


@mutant("truncation", rejects="MSDA-12", origin="int() in place of floor()")
class Truncation(Kernel):
    """Converts to an integer, which rounds (-1, 0) up to 0 and extrapolates there."""

    def floor(self, coordinate: PerSample) -> PerSample:
        return coordinate.trunc()


@mutant("round-to-cell", rejects="MSDA-12", origin="lrint() in place of floor()")
class RoundToCell(Kernel):
    """Rounds to the nearest cell and takes the fraction from there, between -0.5 and 0.5."""

    def floor(self, coordinate: PerSample) -> PerSample:
        return coordinate.round()


@mutant("biased-floor", rejects="MSDA-12", origin="(int)(x + 32768.f) - 32768, a branch-free floor")
class BiasedFloor(Kernel):
    """Floors after adding 32768 in float32, which rounds coordinates just below an integer up to it."""

    def floor(self, coordinate: PerSample) -> PerSample:
        return ((coordinate.float() + 32768).floor() - 32768).to(coordinate.dtype)


@mutant("swapped-corners", rejects="MSDA-13", origin="upper right and lower left exchanged")
class SwappedCorners(Kernel):
    """Gives the upper right corner the share of the lower left, and the other way round."""

    def shares(self, fx: PerSample, fy: PerSample) -> tuple[PerSample, ...]:
        first, second, third, fourth = super().shares(fx, fy)
        return first, third, second, fourth


@mutant("two-triangles", rejects="MSDA-13", origin="barycentric interpolation of a rasteriser")
class TwoTriangles(Kernel):
    """Interpolates on two triangles: exact on affine maps, and different from bilinear on all others."""

    def shares(self, fx: PerSample, fy: PerSample) -> tuple[PerSample, ...]:
        lower = (fx + fy - 1).clamp(min=0)
        return (1 - fx - fy).clamp(min=0), fx - lower, fy - lower, lower


@mutant("smooth-fraction", rejects="MSDA-13", origin="smoothstep, as in shaders")
class SmoothFraction(Kernel):
    """Smooths the fraction to 3f^2 - 2f^3: right at the centres and half way between them."""

    def fraction(self, coordinate: PerSample, floor: PerSample) -> PerSample:
        fraction = super().fraction(coordinate, floor)
        return fraction * fraction * (3 - 2 * fraction)


@mutant("eight-bit-fraction", rejects="MSDA-13", origin="CUDA texture units: 1.8 fixed point")
class EightBitFraction(Kernel):
    """Rounds the fraction to 1/256, as the filtering hardware of a graphics card does."""

    def fraction(self, coordinate: PerSample, floor: PerSample) -> PerSample:
        return (super().fraction(coordinate, floor) * 256).round() / 256


@mutant("nearest-row", rejects="MSDA-13", origin="interpolation along the contiguous axis only")
class NearestRow(Kernel):
    """Interpolates along x and takes the nearest row along y."""

    def shares(self, fx: PerSample, fy: PerSample) -> tuple[PerSample, ...]:
        return super().shares(fx, fy.round())


@mutant("float-flat-index", rejects="MSDA-26", origin="tt-xla 3951")
class FloatFlatIndex(Kernel):
    """Flattens the index in float32, which has no odd integers beyond 2^24."""

    def cell(self, i: Index, j: Index, height: PerLevel, width: PerLevel, start: PerLevel) -> Index:
        return (start.float() + i.float() * width.float() + j.float()).long()


@mutant("index-in-claimed-dtype", rejects="MSDA-26", origin="index arithmetic in the tensor's own dtype")
class IndexInClaimedDtype(Kernel):
    """Flattens the index in the dtype of the value: a bfloat16 index is rounded beyond 256 cells."""

    def row(self, cell: Index, call: Call) -> Index:
        return super().row(cell.to(call.value.dtype).long(), call)


@mutant("fixed-point-columns", rejects="MSDA-26", origin="tt-metal 55133: signed fixed point")
class FixedPointColumns(Kernel):
    """Keeps columns in fixed point with 14 integer bits: a row has no cell beyond 16,384."""

    def cell(self, i: Index, j: Index, height: PerLevel, width: PerLevel, start: PerLevel) -> Index:
        return super().cell(i, j.clamp(max=2**14 - 1), height, width, start)


@mutant("sixteen-bit-cells", rejects="MSDA-26", origin="unsigned short offsets in shared memory")
class SixteenBitCells(Kernel):
    """Keeps the cell within its level in 16 bits, enough for 256 x 256."""

    def cell(self, i: Index, j: Index, height: PerLevel, width: PerLevel, start: PerLevel) -> Index:
        return start + (i * width + j) % 2**16


@mutant("half-cells-of-seventeen-bits", rejects="MSDA-26", origin="a row packed beside its share, 17 and 15 bits")
class HalfCellsOfSeventeenBits(Kernel):
    """Keeps the lowest 17 bits of a row, in half dtypes alone."""

    def row(self, cell: Index, call: Call) -> Index:
        row = super().row(cell, call)
        return row % 2**17 if call.value.dtype.itemsize == 2 else row


@mutant("gradient-rows-in-float32", rejects="MSDA-26", origin="rows as keys of a sort of floats")
class GradientRowsInFloat32(Kernel):
    """Holds the rows of the value gradient in float32, which has no odd integers beyond 2^24."""

    def grad_value(self, grad: Tensor, geometry: Geometry, weights: PerSample, call: Call) -> Tensor:
        rows = tuple(row.float().long().clamp(max=geometry.outside) for row in geometry.rows)
        return super().grad_value(grad, geometry._replace(rows=rows), weights, call)


@mutant("half-coordinates", rejects="MSDA-23", origin="mmcv casts locations to the dtype of the value")
class HalfCoordinates(Kernel):
    """Computes pixel coordinates in the claimed half dtype: a whole cell between 128 and 256 in bfloat16."""

    def coordinates(
        self, locations: Tensor, height: PerLevel, width: PerLevel, dtype: torch.dtype
    ) -> tuple[PerSample, PerSample]:
        x, y = super().coordinates(locations, height, width, locations.dtype)
        return x.to(dtype), y.to(dtype)


@mutant("float32-coordinates-only", rejects="MSDA-23", origin="geometry kernel shared by all dtypes")
class Float32CoordinatesOnly(Kernel):
    """Computes pixel coordinates in float32 for float64 as well."""

    def coordinates(
        self, locations: Tensor, height: PerLevel, width: PerLevel, dtype: torch.dtype
    ) -> tuple[PerSample, PerSample]:
        x, y = super().coordinates(locations, height, width, torch.float32)
        return x.to(dtype), y.to(dtype)
