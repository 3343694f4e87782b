"""Mutants of the layout: which axis is which, and where things lie in memory (MSDA-1 to MSDA-10)."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.deformable_attention.mutants.kernel import (
    Call,
    Index,
    Kernel,
    Mask,
    Output,
    PerLevel,
    PerSample,
)


@mutant("accumulator-dtype-output", rejects="MSDA-1", origin="kernels with float32 accumulators")
class AccumulatorDtypeOutput(Kernel):
    """Returns the float32 accumulator for half inputs: nobody wrote the last cast."""

    def finish(self, output: Output, dtype: torch.dtype) -> Tensor:
        return super().finish(output, output.dtype)


@mutant("heads-not-merged", rejects="MSDA-1", origin="TensorRT's multiscaleDeformableAttn plugin")
class HeadsNotMerged(Kernel):
    """Returns (B, Q, M, D), as the kernel wrote it, without the final view."""

    def finish(self, output: Output, dtype: torch.dtype) -> Tensor:
        return output.to(dtype, copy=True)


@mutant("query-first-output", rejects="MSDA-1", origin="mmcv's batch_first=False convention")
class QueryFirstOutput(Kernel):
    """Returns (Q, B, M * D), the sequence-first layout of torch.nn.MultiheadAttention."""

    def run(self, call: Call) -> Tensor:
        return super().run(call).transpose(0, 1).contiguous()


@mutant("channel-major-output", rejects="MSDA-2", origin="coalesced stores over heads")
class ChannelMajorOutput(Kernel):
    """Writes channel d * M + m, so that neighbouring threads, one a head, write neighbouring numbers."""

    def finish(self, output: Output, dtype: torch.dtype) -> Tensor:
        return super().finish(output.transpose(2, 3), dtype)


@mutant("column-major-maps", rejects="MSDA-3", origin="Fortran order; x before y taken to the memory")
class ColumnMajorMaps(Kernel):
    """Finds cell (i, j) at j * H + i."""

    def cell(self, i: Index, j: Index, height: PerLevel, width: PerLevel, start: PerLevel) -> Index:
        return start + j * height + i


@mutant("even-row-pitch", rejects="MSDA-3", origin="image rows padded to a vector width")
class EvenRowPitch(Kernel):
    """Rounds the length of a row up to an even number, as pitched image memory would have it."""

    def cell(self, i: Index, j: Index, height: PerLevel, width: PerLevel, start: PerLevel) -> Index:
        return start + i * (width + width % 2) + j


@mutant("width-first-shapes", rejects="MSDA-4", origin="fundamentalvision/Deformable-DETR issue 6")
class WidthFirstShapes(Kernel):
    """Reads a row of spatial_shapes as (W, H), the order of everything else in this operation."""

    def sizes(self, spatial_shapes: Int[Tensor, "level 2"]) -> tuple[PerLevel, PerLevel]:
        height, width = super().sizes(spatial_shapes)
        return width, height


@mutant("start-after-one-level", rejects="MSDA-5", origin="prefix sum written as a shift")
class StartAfterOneLevel(Kernel):
    """Starts a level after the one before it only: right for the first two levels."""

    def starts(self, level_start_index: Int[Tensor, " level"], height: PerLevel, width: PerLevel) -> PerLevel:
        sizes = (height * width)[:, 0]
        return torch.cat((sizes.new_zeros(1), sizes[:-1]))[:, None]


@mutant("aligned-level-starts", rejects="MSDA-5", origin="levels aligned to 16 bytes")
class AlignedLevelStarts(Kernel):
    """Rounds the start of each level up to a multiple of four cells."""

    def starts(self, level_start_index: Int[Tensor, " level"], height: PerLevel, width: PerLevel) -> PerLevel:
        return (level_start_index[:, None] + 3) // 4 * 4


@mutant("starts-read-as-int32", rejects="MSDA-5", origin="kernel declared with const int* for an int64 tensor")
class StartsReadAsInt32(Kernel):
    """Reads the memory of level_start_index as 32-bit integers: right with one level."""

    def starts(self, level_start_index: Int[Tensor, " level"], height: PerLevel, width: PerLevel) -> PerLevel:
        words = level_start_index.long().contiguous().view(torch.int32)
        return words[: len(level_start_index), None].long()


@mutant("open-level-end", rejects="MSDA-5", origin="bottom test forgotten")
class OpenLevelEnd(Kernel):
    """Does not test the lower edge: the row below the last is the first row of the next level."""

    def exists(self, i: Index, j: Index, height: PerLevel, width: PerLevel) -> Mask:
        return (i >= 0) & (j >= 0) & (j < width)


@mutant("y-first-locations", rejects="MSDA-6", origin="(row, column) order of array libraries")
class YFirstLocations(Kernel):
    """Reads a location as (y, x)."""

    def prepare(self, call: Call) -> Call:
        return call._replace(sampling_locations=call.sampling_locations.flip(-1))


@mutant("points-before-levels", rejects="MSDA-7", origin="einops pattern written from memory")
class PointsBeforeLevels(Kernel):
    """Reads the locations as (B, Q, M, P, L, 2): the same with one level, or one point."""

    def prepare(self, call: Call) -> Call:
        batch, queries, heads, levels, points, _ = call.sampling_locations.shape
        locations = call.sampling_locations.reshape(batch, queries, heads, points, levels, 2)
        return call._replace(sampling_locations=locations.transpose(3, 4))


@mutant("point-major-weights", rejects="MSDA-7", origin="weights stored for a loop over points")
class PointMajorWeights(Kernel):
    """Reads the weights alone as (B, Q, M, P, L): uniform weights do not notice."""

    def prepare(self, call: Call) -> Call:
        batch, queries, heads, levels, points = call.attention_weights.shape
        weights = call.attention_weights.reshape(batch, queries, heads, points, levels)
        return call._replace(attention_weights=weights.transpose(3, 4))


@mutant("first-head-looks", rejects="MSDA-8", origin="head stride of zero")
class FirstHeadLooks(Kernel):
    """All heads use the locations of head 0."""

    def coordinates(
        self, locations: Tensor, height: PerLevel, width: PerLevel, dtype: torch.dtype
    ) -> tuple[PerSample, PerSample]:
        return super().coordinates(locations[:, :, :1].expand_as(locations), height, width, dtype)


@mutant("paired-value-heads", rejects="MSDA-8", origin="grouped-query attention")
class PairedValueHeads(Kernel):
    """Two heads share the value of one, as in grouped-query attention."""

    def prepare(self, call: Call) -> Call:
        heads = torch.arange(call.value.shape[2], device=call.value.device)
        return call._replace(value=call.value[:, :, heads - heads % 2])


@mutant("value-channel-major", rejects="MSDA-8", origin="value viewed as (B, S, D, M)")
class ValueChannelMajor(Kernel):
    """Takes the value's last axes for (channel, head)."""

    def prepare(self, call: Call) -> Call:
        batch, cells, heads, channels = call.value.shape
        return call._replace(value=call.value.reshape(batch, cells, channels, heads).transpose(2, 3))


@mutant("query-batch-stride", rejects="MSDA-9", origin="stride copied from the output")
class QueryBatchStride(Kernel):
    """Steps from image to image by Q cells instead of S, which is right in every encoder."""

    def row(self, cell: Index, call: Call) -> Index:
        batch, cells, heads, _ = call.value.shape
        image = torch.arange(batch, device=cell.device)[:, None, None, None, None]
        return super().row(cell, call) + image * (call.sampling_locations.shape[1] - cells) * heads


@mutant("first-image-looks", rejects="MSDA-9", origin="reference points made for a batch of one")
class FirstImageLooks(Kernel):
    """Uses the first image's locations for the whole batch."""

    def coordinates(
        self, locations: Tensor, height: PerLevel, width: PerLevel, dtype: torch.dtype
    ) -> tuple[PerSample, PerSample]:
        return super().coordinates(locations[:1].expand_as(locations), height, width, dtype)


@mutant("tail-reads-neighbour", rejects="MSDA-10", origin="tile tails in registers")
class TailReadsNeighbour(Kernel):
    """In an incomplete tile of eight queries the last one takes the weights of the one before it."""

    def weigh(self, weights: PerSample, in_range: Mask) -> PerSample:
        queries = weights.shape[1]
        if queries % 8 and queries > 8:
            weights = torch.cat((weights[:, :-1], weights[:, -2:-1]), dim=1)
        return super().weigh(weights, in_range)


@mutant("sorted-for-locality", rejects="MSDA-10", origin="queries sorted along a space-filling curve")
class SortedForLocality(Kernel):
    """Sorts more than 64 queries by place, for the cache, and does not put the results back."""

    def prepare(self, call: Call) -> Call:
        if call.attention_weights.shape[1] <= 64 or not len(call.value):
            return call
        order = call.sampling_locations[0, :, 0, 0, 0, 0].argsort()
        return call._replace(
            sampling_locations=call.sampling_locations[:, order],
            attention_weights=call.attention_weights[:, order],
        )
