"""Right implementations of the sampling core, each written in another way than the reference."""

from __future__ import annotations

import threading

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from detr_conformance.evidence.registry import twin
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
    take_images,
    take_queries,
)
from detr_conformance.topics.deformable_attention.twins.plain import PlainGather


@twin("chunked-queries", origin="memory-saving loops over queries")
class ChunkedQueries(Kernel):
    """Works on seven queries at a time; autograd adds the chunks' value gradients up, before the cast to half."""

    def run(self, call: Call) -> Tensor:
        wide = call._replace(value=call.value.to(self.compute_dtype(call)))
        starts = range(0, max(call.attention_weights.shape[1], 1), 7)
        chunks = [super(ChunkedQueries, self).run(take_queries(wide, slice(i, i + 7))) for i in starts]
        return torch.cat(chunks, 1).to(call.value.dtype)


@twin("chunked-images", origin="im2col_step, with a last chunk that may be smaller")
class ChunkedImages(Kernel):
    """Works on four images at a time."""

    def run(self, call: Call) -> Tensor:
        starts = range(0, max(len(call.value), 1), 4)
        return torch.cat([super(ChunkedImages, self).run(take_images(call, slice(i, i + 4))) for i in starts])


@twin("levels-reversed", origin="coarse to fine")
class LevelsReversed(Kernel):
    """Adds level after level to a running sum, beginning with the last."""

    def accumulate(self, samples: Vectors, weights: PerSample) -> Output:
        terms = weights[..., None] * samples
        total = terms.new_zeros(*terms.shape[:3], terms.shape[-1])
        for level in reversed(range(terms.shape[3])):
            total = total + terms[:, :, :, level].sum(3)
        return total


@twin("sequential-sum", origin="a register accumulator in a loop over points and levels")
class SequentialSum(Kernel):
    """Adds one sample after another, points outside, levels inside."""

    def accumulate(self, samples: Vectors, weights: PerSample) -> Output:
        total = samples.new_zeros(*samples.shape[:3], samples.shape[-1])
        for point in range(samples.shape[4]):
            for level in range(samples.shape[3]):
                total = total + weights[:, :, :, level, point, None] * samples[:, :, :, level, point]
        return total


@twin("grid-sample", origin="ms_deform_attn_core_pytorch, in all public Python versions")
class GridSample(Kernel):
    """Calls grid_sample for each level, in float32 or better, and moves what it must not see out of its sight."""

    def run(self, call: Call) -> Tensor:
        if not (call.value.numel() and call.attention_weights.numel()):
            return super().run(call)  # grid_sample refuses an empty batch and an empty map
        dtype = self.compute_dtype(call)
        batch, queries, heads, _, points = call.attention_weights.shape
        channels = call.value.shape[-1]
        height, width = self.sizes(call.spatial_shapes)
        x, y = self.coordinates(call.sampling_locations, height, width, dtype)
        in_range = self.in_range(x, y, height, width)
        grid = torch.where(in_range[..., None], 2 * call.sampling_locations.to(dtype) - 1, -3.0)
        weights = self.weigh(call.attention_weights.to(dtype), in_range)
        total = call.value.new_zeros(batch, queries, heads, channels, dtype=dtype)
        start = 0
        for level, (h, w) in enumerate(call.spatial_shapes.tolist()):
            maps = call.value[:, start : start + h * w].to(dtype).permute(0, 2, 3, 1)
            start += h * w
            if not h * w:
                continue
            samples = F.grid_sample(
                maps.reshape(batch * heads, channels, h, w),
                grid[:, :, :, level].transpose(1, 2).reshape(batch * heads, queries, points, 2),
                align_corners=False,
            )
            samples = samples.reshape(batch, heads, channels, queries, points).permute(0, 3, 1, 4, 2)
            total = total + (weights[:, :, :, level, :, None] * samples).sum(3)
        return self.finish(total, call.value.dtype)


@twin("channels-first", origin="maps kept as (B, M, D, H * W), as a convolution leaves them")
class ChannelsFirst(PlainGather):
    """Gathers along the last axis of channels-first maps and sums there."""

    def forward(self, call: Call) -> Tensor:
        dtype = self.compute_dtype(call)
        geometry = self.geometry(call, dtype)
        channels = call.value.shape[-1]
        cells = self.table(call.value, dtype).T
        weights = self.weigh(call.attention_weights.to(dtype), geometry.in_range)
        total = cells.new_zeros(channels, *weights.shape[:3])
        for row, share in zip(geometry.rows, geometry.shares, strict=True):
            corner = cells.index_select(1, row.flatten()).reshape(channels, *row.shape)
            total = total + (weights * share * corner).sum((4, 5))
        return self.finish(total.permute(1, 2, 3, 0), call.value.dtype)


@twin("sorted-scatter", origin="segmented reduction in place of atomics")
class SortedScatter(Kernel):
    """Sorts the updates of the value gradient by cell before it adds them up."""

    def scatter(self, table: Table, rows: Int[Tensor, " update"], updates: Float[Tensor, "update channel"]) -> None:
        rows, order = rows.sort(stable=True)
        super().scatter(table, rows, updates[order])


@twin("float64-inside", origin="double accumulators")
class Float64Inside(Kernel):
    """Computes everything in float64 and rounds at the end."""

    def compute_dtype(self, call: Call) -> torch.dtype:
        return torch.float64


@twin("fused-multiply-add-shares", origin="fnma: three products for four shares")
class FusedShares(Kernel):
    """Takes each share along x out of the share of its row."""

    def shares(self, fx: PerSample, fy: PerSample) -> tuple[PerSample, ...]:
        upper, lower_right = 1 - fy, fy * fx
        upper_right = upper * fx
        return upper - upper_right, upper_right, fy - lower_right, lower_right


@twin("row-by-row", origin="separable interpolation: along x, then along y")
class RowByRow(PlainGather):
    """Interpolates the upper and the lower row first, and then between them."""

    def shares(self, fx: PerSample, fy: PerSample) -> tuple[PerSample, ...]:
        return 1 - fx, fx, 1 - fy, fy

    def interpolate(self, corners: tuple[Vectors, ...], shares: tuple[PerSample, ...]) -> Vectors:
        v1, v2, v3, v4 = corners
        left, right, upper, lower = (share[..., None] for share in shares)
        return upper * (left * v1 + right * v2) + lower * (left * v3 + right * v4)


@twin("sparse-matrix", origin="interpolation as a sparse matrix, as in geometry libraries")
class SparseMatrix(Kernel):
    """Multiplies the maps with one sparse matrix that holds four shares a sample."""

    def forward(self, call: Call) -> Tensor:
        dtype = self.compute_dtype(call)
        geometry = self.geometry(call, dtype)
        weights = self.weigh(call.attention_weights.to(dtype), geometry.in_range)
        batch, queries, heads = weights.shape[:3]
        columns = torch.stack(geometry.rows, -1).flatten(3).flatten(0, 2)
        entries = torch.stack([weights * share for share in geometry.shares], -1).flatten(3).flatten(0, 2)
        row = torch.arange(len(columns), device=columns.device)[:, None].expand_as(columns)
        matrix = torch.sparse_coo_tensor(
            torch.stack((row.flatten(), columns.flatten())),
            entries.flatten(),
            (len(columns), geometry.outside + 1),
            check_invariants=False,
        )
        table = self.table(call.value, dtype)
        with torch.autocast(call.value.device.type, enabled=False):
            output = torch.sparse.mm(matrix, table) if len(columns) else table.new_zeros(0, table.shape[1])
        return self.finish(output.unflatten(0, (batch, queries, heads)), call.value.dtype)


@twin("scattered-output", origin="index_add from samples to queries")
class ScatteredOutput(Kernel):
    """Adds every weighted corner to the row of its query, instead of summing over axes."""

    def accumulate(self, samples: Vectors, weights: PerSample) -> Output:
        batch, queries, heads, levels, points, channels = samples.shape
        terms = (weights[..., None] * samples).reshape(-1, channels)
        row = torch.arange(batch * queries * heads, device=terms.device).repeat_interleave(levels * points)
        output = terms.new_zeros(batch * queries * heads, channels).index_add(0, row, terms)
        return output.reshape(batch, queries, heads, channels)


@twin("padded-maps", origin="a frame of zeros around each map, so that no corner is ever missing")
class PaddedMaps(PlainGather):
    """Puts a frame of zero cells around each level, and needs no test of corners."""

    def forward(self, call: Call) -> Tensor:
        framed, start = [], 0
        for height, width in call.spatial_shapes.tolist():
            cells = call.value[:, start : start + height * width].flatten(2)
            maps = cells.reshape(len(cells), height, width, cells.shape[2])
            framed.append(F.pad(maps, (0, 0, 1, 1, 1, 1)).flatten(1, 2))
            start += height * width
        value = torch.cat(framed, 1).unflatten(2, call.value.shape[2:])
        sizes = (call.spatial_shapes + 2).prod(-1)
        return super().forward(call._replace(value=value, level_start_index=sizes.cumsum(0) - sizes))

    def exists(self, i: Index, j: Index, height: PerLevel, width: PerLevel) -> Mask:
        return torch.ones_like(i, dtype=torch.bool)

    def cell(self, i: Index, j: Index, height: PerLevel, width: PerLevel, start: PerLevel) -> Index:
        return start + (i + 1) * (width + 2) + j + 1


@twin("corners-at-once", origin="gather of all corners at once")
class CornersAtOnce(PlainGather):
    """Stacks the corners as one more axis and sums over corner, point and level together."""

    def forward(self, call: Call) -> Tensor:
        dtype = self.compute_dtype(call)
        geometry = self.geometry(call, dtype)
        weights = self.weigh(call.attention_weights.to(dtype), geometry.in_range)
        rows, shares = torch.stack(geometry.rows, -1), torch.stack(geometry.shares, -1)
        corners = self.read(self.table(call.value, dtype), (rows,))[0]
        output = ((weights[..., None] * shares)[..., None] * corners).sum((3, 4, 5))
        return self.finish(output, call.value.dtype)


@twin("scaled-twice", origin="x = ((2 * loc - 1 + 1) * W - 1) / 2, the way through grid_sample's coordinates")
class ScaledTwice(Kernel):
    """Goes from locations to pixels by way of [-1, 1]."""

    def pixel(self, location: PerSample, size: PerLevel) -> PerSample:
        grid = 2 * location - 1
        return ((grid + 1) * size - 1) / 2


@twin("gradient-by-level", origin="one kernel launch a level")
class GradientByLevel(Kernel):
    """Adds up the value gradient level after level."""

    def grad_value(
        self, grad: Tensor, geometry: Geometry, weights: PerSample, call: Call
    ) -> Float[Tensor, "batch cell head channel"]:
        levels = torch.arange(weights.shape[3], device=weights.device)[:, None]
        total = grad.new_zeros(call.value.shape)
        for level in range(weights.shape[3]):
            rows = tuple(torch.where(levels == level, row, geometry.outside) for row in geometry.rows)
            total += super().grad_value(grad, geometry._replace(rows=rows), weights, call)
        return total


@twin("outputs-of-one-arena", origin="memory pools: many outputs are slices of one allocation")
class OutputsOfOneArena(Kernel):
    """Hands out slices of one buffer, each of them once."""

    ROOM = 1 << 16

    def __init__(self) -> None:
        self.arena = torch.empty(0)
        self.used = 0
        self.one_at_a_time = threading.Lock()

    def finish(self, output: Output, dtype: torch.dtype) -> Tensor:
        dense = super().finish(output, dtype)
        with self.one_at_a_time:
            place = self.reserve(dense)
        return place.copy_(dense)

    def reserve(self, like: Tensor) -> Tensor:
        if self.arena.dtype != like.dtype or self.used + like.numel() > self.arena.numel():
            self.arena, self.used = like.new_empty(max(self.ROOM, like.numel())), 0
        place = like.new_empty(0).set_(self.arena.untyped_storage(), self.used, like.shape, like.stride())
        self.used += like.numel()
        return place
