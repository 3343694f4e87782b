"""Deformable attention as the author of a kernel writes it: one overridable step after another.

Forward and backward are explicit formulas over gathered corners and share nothing with the reference, which builds
an embedding_bag and leaves the gradients to autograd. The unchanged `Kernel` is a twin; nearly every mutant is a
subclass that gets one step wrong.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from detr_conformance.evidence.registry import twin

PerLevel = Int[Tensor, "level 1"]
PerSample = Float[Tensor, "batch query head level point"]
Index = Int[Tensor, "batch query head level point"]
Mask = Bool[Tensor, "batch query head level point"]
Vectors = Float[Tensor, "batch query head level point channel"]
Output = Float[Tensor, "batch query head channel"]
Table = Float[Tensor, "row channel"]


class Call(NamedTuple):
    """The arguments of one call."""

    value: Float[Tensor, "batch cell head channel"]
    spatial_shapes: Int[Tensor, "level 2"]
    level_start_index: Int[Tensor, " level"]
    sampling_locations: Float[Tensor, "batch query head level point 2"]
    attention_weights: PerSample


def take_images(call: Call, images: slice) -> Call:
    """The same call for some of its images."""
    return call._replace(
        value=call.value[images],
        sampling_locations=call.sampling_locations[images],
        attention_weights=call.attention_weights[images],
    )


def take_queries(call: Call, queries: slice) -> Call:
    """The same call for some of its queries."""
    return call._replace(
        sampling_locations=call.sampling_locations[:, queries],
        attention_weights=call.attention_weights[:, queries],
    )


class Geometry(NamedTuple):
    """Where the samples of a call lie. Corners: upper left, upper right, lower left, lower right."""

    height: PerLevel
    width: PerLevel
    in_range: Mask
    fx: PerSample
    fy: PerSample
    shares: tuple[PerSample, ...]
    rows: tuple[Index, ...]  # of the table of cells
    outside: int  # the table's last row: zero, for corners outside


class Needs(NamedTuple):
    """Which gradients are asked for."""

    value: bool
    locations: bool
    weights: bool


Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]


@twin("hand-written-backward", origin="fundamentalvision/Deformable-DETR, ms_deform_im2col_cuda.cuh")
class Kernel:
    """Gathers four corners a sample, and writes its backward out by hand."""

    def __call__(
        self,
        value: Float[Tensor, "batch cell head channel"],
        spatial_shapes: Int[Tensor, "level 2"],
        level_start_index: Int[Tensor, " level"],
        sampling_locations: Float[Tensor, "batch query head level point 2"],
        attention_weights: PerSample,
    ) -> Float[Tensor, "batch query head*channel"]:
        call = Call(value, spatial_shapes, level_start_index, sampling_locations, attention_weights)
        self.check(call)
        return self.run(self.prepare(call))

    def run(self, call: Call) -> Float[Tensor, "batch query head*channel"]:
        return _Differentiable.apply(self, *call)

    def check(self, call: Call) -> None:
        levels = call.spatial_shapes.shape[0]
        if call.sampling_locations.shape[3] != levels or call.level_start_index.shape[0] != levels:
            raise ValueError("spatial_shapes, level_start_index and sampling_locations differ in levels")
        if call.attention_weights.shape != call.sampling_locations.shape[:-1]:
            raise ValueError("attention_weights and sampling_locations differ in shape")
        if torch.compiler.is_compiling():
            return
        if int(call.spatial_shapes.prod(-1).sum()) != call.value.shape[1]:
            raise ValueError("value does not have as many cells as spatial_shapes asks for")
        sizes = call.spatial_shapes.prod(-1)
        if not torch.equal(call.level_start_index.long(), (sizes.cumsum(0) - sizes).long()):
            raise ValueError("level_start_index disagrees with spatial_shapes")

    def prepare(self, call: Call) -> Call:
        """What happens to the arguments before the kernel, seen by autograd."""
        return call

    # Forward, step by step.

    def forward(self, call: Call) -> Tensor:
        dtype = self.compute_dtype(call)
        geometry = self.geometry(call, dtype)
        corners = self.read(self.table(call.value, dtype), geometry.rows)
        weights = self.weigh(call.attention_weights.to(dtype), geometry.in_range)
        output = self.accumulate(self.interpolate(corners, geometry.shares), weights)
        return self.finish(output, call.value.dtype)

    def compute_dtype(self, call: Call) -> torch.dtype:
        floating = (call.value, call.sampling_locations, call.attention_weights)
        return torch.float64 if any(tensor.dtype == torch.float64 for tensor in floating) else torch.float32

    def geometry(self, call: Call, dtype: torch.dtype) -> Geometry:
        height, width = self.sizes(call.spatial_shapes)
        start = self.starts(call.level_start_index, height, width)
        x, y = self.coordinates(call.sampling_locations, height, width, dtype)
        in_range = self.in_range(x, y, height, width)
        x, y = self.gated(x, in_range), self.gated(y, in_range)
        left, top = self.floor(x), self.floor(y)
        fx, fy = self.fraction(x, left), self.fraction(y, top)
        outside = call.value.shape[:3].numel()
        rows = []
        for down, across in ((0, 0), (0, 1), (1, 0), (1, 1)):
            i, j = top.long() + down, left.long() + across
            exists = in_range & self.exists(i, j, height, width)
            row = self.row(self.cell(i, j, height, width, start), call)
            # A wrong row would read foreign memory in a kernel; here it reads the zero row.
            rows.append(torch.where(exists & (row >= 0) & (row < outside), row, outside))
        return Geometry(height, width, in_range, fx, fy, self.shares(fx, fy), tuple(rows), outside)

    def sizes(self, spatial_shapes: Int[Tensor, "level 2"]) -> tuple[PerLevel, PerLevel]:
        return spatial_shapes[:, :1], spatial_shapes[:, 1:]

    def starts(self, level_start_index: Int[Tensor, " level"], height: PerLevel, width: PerLevel) -> PerLevel:
        return level_start_index[:, None]

    def coordinates(
        self, locations: Tensor, height: PerLevel, width: PerLevel, dtype: torch.dtype
    ) -> tuple[PerSample, PerSample]:
        x, y = locations.to(dtype).unbind(-1)
        return self.pixel(x, width), self.pixel(y, height)

    def pixel(self, location: PerSample, size: PerLevel) -> PerSample:
        return location * size - 0.5

    def in_range(self, x: PerSample, y: PerSample, height: PerLevel, width: PerLevel) -> Mask:
        return (x > -1) & (x < width) & (y > -1) & (y < height)

    def gated(self, coordinate: PerSample, in_range: Mask) -> PerSample:
        return torch.where(in_range, coordinate, 0)

    def floor(self, coordinate: PerSample) -> PerSample:
        return coordinate.floor()

    def fraction(self, coordinate: PerSample, floor: PerSample) -> PerSample:
        return coordinate - floor

    def shares(self, fx: PerSample, fy: PerSample) -> tuple[PerSample, ...]:
        return (1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx

    def exists(self, i: Index, j: Index, height: PerLevel, width: PerLevel) -> Mask:
        return (i >= 0) & (i < height) & (j >= 0) & (j < width)

    def cell(self, i: Index, j: Index, height: PerLevel, width: PerLevel, start: PerLevel) -> Index:
        return start + i * width + j

    def row(self, cell: Index, call: Call) -> Index:
        batch, cells, heads, _ = call.value.shape
        image = torch.arange(batch, device=cell.device)[:, None, None, None, None]
        head = torch.arange(heads, device=cell.device)[:, None, None]
        return (image * cells + cell) * heads + head

    def table(self, value: Float[Tensor, "batch cell head channel"], dtype: torch.dtype) -> Table:
        rows = value.flatten(0, 2)
        return torch.cat((rows.to(dtype), rows.new_zeros(1, value.shape[-1], dtype=dtype)))

    def read(self, table: Table, rows: tuple[Index, ...]) -> tuple[Vectors, ...]:
        return tuple(table.index_select(0, row.flatten()).reshape(*row.shape, table.shape[-1]) for row in rows)

    def interpolate(self, corners: tuple[Vectors, ...], shares: tuple[PerSample, ...]) -> Vectors:
        first, second, third, fourth = (
            share[..., None] * corner for share, corner in zip(shares, corners, strict=True)
        )
        return (first + second) + (third + fourth)

    def weigh(self, weights: PerSample, in_range: Mask) -> PerSample:
        return torch.where(in_range, weights, 0)

    def accumulate(self, samples: Vectors, weights: PerSample) -> Output:
        return (weights[..., None] * samples).sum((3, 4))

    def finish(self, output: Output, dtype: torch.dtype) -> Tensor:
        batch, queries, heads, channels = output.shape
        # A copy: a view made inside an autograd.Function may not be modified in place by the caller.
        return output.reshape(batch, queries, heads * channels).to(dtype, copy=True)

    # Backward, step by step.

    def backward(self, call: Call, grad_output: Tensor, needs: Needs) -> Gradients:
        dtype = self.compute_dtype(call)
        geometry = self.geometry(call, dtype)
        corners = self.read(self.table(call.value, dtype), geometry.rows)
        weights = self.weigh(call.attention_weights.to(dtype), geometry.in_range)
        batch, queries, heads = weights.shape[:3]
        grad = grad_output.to(dtype).reshape(batch, queries, heads, 1, 1, call.value.shape[-1])
        grad_value = grad_locations = grad_weights = None
        if needs.value:
            grad_value = self.grad_value(grad, geometry, weights, call).to(call.value.dtype)
        if needs.locations:
            grad_locations = self.grad_locations(grad, corners, geometry, weights)
            grad_locations = grad_locations.to(call.sampling_locations.dtype)
        if needs.weights:
            samples = self.interpolate(corners, geometry.shares)
            grad_weights = self.grad_weights(grad, samples, geometry, weights).to(call.attention_weights.dtype)
        return grad_value, grad_locations, grad_weights

    def grad_weights(self, grad: Tensor, samples: Vectors, geometry: Geometry, weights: PerSample) -> PerSample:
        return torch.where(geometry.in_range, (grad * samples).sum(-1), 0)

    def grad_locations(
        self, grad: Tensor, corners: tuple[Vectors, ...], geometry: Geometry, weights: PerSample
    ) -> Float[Tensor, "batch query head level point 2"]:
        along_x, along_y = self.slopes(corners, geometry)
        return torch.stack(
            (
                torch.where(geometry.in_range, geometry.width * weights * (grad * along_x).sum(-1), 0),
                torch.where(geometry.in_range, geometry.height * weights * (grad * along_y).sum(-1), 0),
            ),
            dim=-1,
        )

    def slopes(self, corners: tuple[Vectors, ...], geometry: Geometry) -> tuple[Vectors, Vectors]:
        v1, v2, v3, v4 = corners
        fx, fy = geometry.fx[..., None], geometry.fy[..., None]
        return (1 - fy) * (v2 - v1) + fy * (v4 - v3), (1 - fx) * (v3 - v1) + fx * (v4 - v2)

    def grad_value(
        self, grad: Tensor, geometry: Geometry, weights: PerSample, call: Call
    ) -> Float[Tensor, "batch cell head channel"]:
        table = grad.new_zeros(call.value.shape[:3].numel() + 1, call.value.shape[-1])
        for row, share in zip(geometry.rows, geometry.shares, strict=True):
            updates = ((share * weights)[..., None] * grad).reshape(-1, table.shape[-1])
            self.scatter(table, row.flatten(), updates)
        return table[:-1].reshape(call.value.shape)

    def scatter(self, table: Table, rows: Int[Tensor, " update"], updates: Float[Tensor, "update channel"]) -> None:
        table.index_add_(0, rows, updates)


class _Differentiable(torch.autograd.Function):
    """Puts a kernel's forward and backward into autograd's hands."""

    @staticmethod
    def forward(ctx: Any, kernel: Kernel, *arguments: Tensor) -> Tensor:
        ctx.kernel = kernel
        ctx.save_for_backward(*arguments)
        return kernel.forward(Call(*arguments))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        _, value, _, _, locations, weights = ctx.needs_input_grad
        needs = Needs(value, locations, weights)
        grads = ctx.kernel.backward(Call(*ctx.saved_tensors), grad_output, needs)
        return None, grads[0], None, None, grads[1], grads[2]
