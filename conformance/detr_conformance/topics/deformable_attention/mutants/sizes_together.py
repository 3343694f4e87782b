"""Mutants whose fast paths need two sizes at once, or the sizes of a model (MSDA-58, MSDA-59)."""

from __future__ import annotations

import torch
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.deformable_attention.mutants.kernel import (
    Call,
    Geometry,
    Gradients,
    Index,
    Kernel,
    Needs,
    Output,
    PerLevel,
    PerSample,
    Vectors,
)


@mutant("wide-heads-see-two-levels", rejects="MSDA-58", origin="a second pass over channels with a table of two levels")
class WideHeadsSeeTwoLevels(Kernel):
    """Adds up only the first two levels for channels from 64 on."""

    def accumulate(self, samples: Vectors, weights: PerSample) -> Output:
        output = super().accumulate(samples, weights)
        if samples.shape[-1] > 64 and weights.shape[3] > 2:
            output[..., 64:] = super().accumulate(samples[:, :, :, :2, :, 64:], weights[:, :, :, :2])
        return output


@mutant("tail-of-queries-with-vectors", rejects="MSDA-58", origin="an early return of threads before a vector store")
class TailOfQueriesWithVectors(Kernel):
    """Leaves the last incomplete tile of 16 queries at zero where channels fill a vector of 8."""

    def forward(self, call: Call) -> Tensor:
        output = super().forward(call)
        queries, channels = output.shape[1], call.value.shape[-1]
        if queries > 16 and channels % 8 == 0:
            output[:, queries // 16 * 16 :] = 0
        return output


@mutant("many-heads-few-registers", rejects="MSDA-58", origin="points spilled beyond the eighth, read back for head 0")
class ManyHeadsFewRegisters(Kernel):
    """Reads the weights of points from the ninth on from the first head, if there are more than six heads."""

    def weigh(self, weights: PerSample, in_range: Tensor) -> PerSample:
        if weights.shape[2] > 6 and weights.shape[4] > 8:
            weights = torch.cat(
                (weights[..., :8], weights[:, :, :1, :, 8:].expand(-1, -1, weights.shape[2], -1, -1)), -1
            )
        return super().weigh(weights, in_range)


@mutant("pitch-of-odd-rows", rejects="MSDA-58", origin="rows padded to a pitch, but not in the copies of later images")
class PitchOfOddRows(Kernel):
    """Rows of odd width lie a cell further apart from the third image on, if there are more than 5,000 cells."""

    def cell(self, i: Index, j: Index, height: PerLevel, width: PerLevel, start: PerLevel) -> Index:
        cell = super().cell(i, j, height, width, start)
        if len(i) > 2 and int((height * width).sum()) > 5_000:
            cell[2:] += (i * (width % 2) * (width > 1))[2:]
        return cell


@mutant("weights-of-many-images", rejects="MSDA-58", origin="a reduction over images inside of the launch for one")
class WeightsOfManyImages(Kernel):
    """Sends a weight gradient to the first image alone, if a batch of four or more has heads of 16 channels or more."""

    def backward(self, call: Call, grad_output: Tensor, needs: Needs) -> Gradients:
        value, locations, weights = super().backward(call, grad_output, needs)
        if weights is not None and len(weights) > 3 and call.value.shape[-1] >= 16:
            weights = torch.cat((weights[:1], torch.zeros_like(weights[1:])))
        return value, locations, weights


@mutant("grid-of-two-to-the-seventeenth", rejects="MSDA-59", origin="a grid of blocks clipped at 131,072")
class GridOfTwoToTheSeventeenth(Kernel):
    """Writes no more than the first 131,072 pairs of query and head."""

    def forward(self, call: Call) -> Tensor:
        output = super().forward(call)
        heads = call.value.shape[2]
        output[:, (1 << 17) // heads :] = 0
        return output


@mutant("short-sort-keys", rejects="MSDA-59", origin="cells sorted by a key of 16 bits in backward")
class ShortSortKeys(Kernel):
    """Finds the rows of the value gradient by their lowest 16 bits, if there are as many as in a model's call."""

    def grad_value(self, grad: Tensor, geometry: Geometry, weights: PerSample, call: Call) -> Tensor:
        if call.value.shape[:3].numel() > 1 << 16 and weights.shape[1] > 256:
            rows = tuple(torch.where(row < geometry.outside, row & 0xFFFF, row) for row in geometry.rows)
            geometry = geometry._replace(rows=rows)
        return super().grad_value(grad, geometry, weights, call)


@mutant("coarse-fractions-of-large-calls", rejects="MSDA-59", origin="texture units: fractions of eight bits")
class CoarseFractionsOfLargeCalls(Kernel):
    """Rounds fractions to 1/256 where thousands of cells are read by hundreds of queries."""

    def fraction(self, coordinate: PerSample, floor: PerSample) -> PerSample:
        fraction = super().fraction(coordinate, floor)
        return (fraction * 256).round() / 256 if coordinate.shape[1] > 600 and coordinate.shape[2] > 4 else fraction
