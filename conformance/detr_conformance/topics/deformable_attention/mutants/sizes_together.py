"""Mutants whose fast paths need two sizes at once, or the sizes of a model (MSDA-58, MSDA-59, MSDM-22, MSDM-23)."""

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
from detr_conformance.topics.deformable_attention.mutants.module import (
    HandWrittenModule,
    Heads,
    Inputs,
    Logits,
    Offsets,
    Tokens,
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


@mutant("wide-projection-in-bfloat16", rejects="MSDM-22", origin="a tensor-core path for wide matrices")
class WideProjectionInBfloat16(HandWrittenModule):
    """Rounds the projected value to bfloat16 if it has more than 256 channels."""

    def split(self, projected: Tokens) -> Heads:
        wide = projected.shape[-1] > 256
        return super().split(projected.bfloat16().to(projected.dtype) if wide else projected)


@mutant("boxes-of-unrolled-points", rejects="MSDM-22", origin="an unrolled loop over at most eight points")
class BoxesOfUnrolledPoints(HandWrittenModule):
    """Divides the offsets in a box by eight, if there are more points than that."""

    def within_box(self, centre: Tensor, size: Tensor, offsets: Offsets) -> Tensor:
        points = self.samples[2]
        return super().within_box(centre, size, offsets * (points / min(points, 8)))


@mutant("levels-without-reference-gradient", rejects="MSDM-22", origin="a table of four levels in backward")
class LevelsWithoutReferenceGradient(HandWrittenModule):
    """Sends no gradient to the reference points of levels from the fifth on, of several images."""

    def per_level(self, reference: Tensor) -> Tensor:
        if reference.shape[0] > 1:
            reference = torch.cat((reference[:, :, :4], reference[:, :, 4:].detach()), 2)
        return super().per_level(reference)


@mutant("positions-of-few-queries", rejects="MSDM-22", origin="positions added in a kernel of one block of threads")
class PositionsOfFewQueries(HandWrittenModule):
    """Adds no positions to queries from the hundredth on, where a head has more than 16 channels."""

    def inputs(self, query: Tokens, value: Tensor | None, identity: Tensor | None, query_pos: Tensor | None) -> Inputs:
        if query_pos is not None and query.shape[-1] > 16 * self.samples[0]:
            query_pos = torch.cat((query_pos[:, :100], torch.zeros_like(query_pos[:, 100:])), 1)
        return super().inputs(query, value, identity, query_pos)


@mutant(
    "logits-of-the-last-chunk", rejects="MSDM-23", origin="queries in chunks of 1,024, the last one aligned to the end"
)
class LogitsOfTheLastChunk(HandWrittenModule):
    """Gives the last incomplete chunk of an encoder's queries the weights of the queries before it."""

    def weights(self, logits: Logits) -> Logits:
        queries = logits.shape[1]
        left = queries % 1024
        if queries > 1024 and left:
            logits = torch.cat((logits[:, :-left], logits[:, -2 * left : -left]), 1)
        return super().weights(logits)


@mutant(
    "encoder-keeps-no-value-gradient", rejects="MSDM-23", origin="a memory saved by detaching the maps of large calls"
)
class EncoderKeepsNoValueGradient(HandWrittenModule):
    """Detaches the maps where the queries are the cells, if there are more than two thousand of them."""

    def maps(self, value: Tokens, mask: Tensor | None) -> Heads:
        maps = super().maps(value, mask)
        return maps.detach() if value.shape[1] > 2_000 else maps
