"""Mutants with chunks, tiles, vectors and templates that do not fit every size (MSDA-42, MSDA-50, MSDA-51)."""

from __future__ import annotations

import torch
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.deformable_attention.mutants.kernel import (
    Call,
    Geometry,
    Gradients,
    Kernel,
    Mask,
    Needs,
    Output,
    PerLevel,
    PerSample,
    Vectors,
    take_images,
)

STEP = 64


@mutant("empty-batch-divides-by-zero", rejects="MSDA-42", origin="batch % min(batch, im2col_step)")
class EmptyBatchDividesByZero(Kernel):
    """Takes the batch modulo its chunk size, which is zero for an empty batch."""

    def check(self, call: Call) -> None:
        super().check(call)
        divmod(len(call.value), min(len(call.value), STEP))


@mutant("no-queries-no-launch", rejects="MSDA-42", origin="CUDA: invalid configuration argument for an empty grid")
class NoQueriesNoLaunch(Kernel):
    """Raises for zero queries, as a launch with an empty grid does."""

    def forward(self, call: Call) -> Tensor:
        if not call.attention_weights.shape[1]:
            raise RuntimeError("invalid configuration argument")
        return super().forward(call)


@mutant("no-queries-no-gradient", rejects="MSDA-42", origin="stack of an empty list of tiles in backward")
class NoQueriesNoGradient(Kernel):
    """Has no tiles to stack in the backward of an empty call."""

    def backward(self, call: Call, grad_output: Tensor, needs: Needs) -> Gradients:
        if not call.attention_weights.numel():
            raise RuntimeError("stack expects a non-empty TensorList")
        return super().backward(call, grad_output, needs)


@mutant("batch-must-divide", rejects="MSDA-50", origin="Deformable-DETR 224: im2col_step")
class BatchMustDivide(Kernel):
    """Raises if the batch is larger than the chunk and no multiple of it."""

    def check(self, call: Call) -> None:
        super().check(call)
        if len(call.value) > STEP and len(call.value) % STEP:
            raise RuntimeError(f"batch({len(call.value)}) must divide im2col_step({STEP})")


@mutant("partial-chunk-dropped", rejects="MSDA-50", origin="batch / im2col_step rounded down")
class PartialChunkDropped(Kernel):
    """Leaves images beyond the last whole chunk of 64 at zero."""

    def forward(self, call: Call) -> Tensor:
        output = super().forward(call)
        if len(output) > STEP:
            output[len(output) // STEP * STEP :] = 0
        return output


@mutant("partial-chunk-without-gradient", rejects="MSDA-50", origin="the loop bound was repaired in forward only")
class PartialChunkWithoutGradient(Kernel):
    """Sends no gradient to images beyond the last whole chunk of 64."""

    def backward(self, call: Call, grad_output: Tensor, needs: Needs) -> Gradients:
        grads = super().backward(call, grad_output, needs)
        for grad in grads:
            if grad is not None and len(grad) > STEP:
                grad[len(grad) // STEP * STEP :] = 0
        return grads


@mutant("last-chunk-repeats", rejects="MSDA-50", origin="last chunk shifted back to be whole")
class LastChunkRepeats(Kernel):
    """Moves the last chunk back to make it whole, and writes it as if it had not moved."""

    def forward(self, call: Call) -> Tensor:
        output = super().forward(call)
        rest = len(output) % STEP
        if len(output) > STEP and rest:
            output[-rest:] = super().forward(take_images(call, slice(len(output) - STEP, None)))[:rest]
        return output


@mutant("query-tile-tail", rejects="MSDA-50", origin="grid of Q / 32 blocks, rounded down")
class QueryTileTail(Kernel):
    """Leaves queries beyond the last whole tile of 32 at zero, but only if there is a whole one."""

    def finish(self, output: Output, dtype: torch.dtype) -> Tensor:
        result = super().finish(output, dtype)
        if result.shape[1] > 32:
            result[:, result.shape[1] // 32 * 32 :] = 0
        return result


@mutant("grid-y-limit", rejects="MSDA-50", origin="65,535 blocks along y; the launch error is not read")
class GridYLimit(Kernel):
    """Returns zeros for more than 65,535 queries times heads, because the launch failed."""

    def finish(self, output: Output, dtype: torch.dtype) -> Tensor:
        failed = output.shape[1] * output.shape[2] > 65_535
        return super().finish(torch.zeros_like(output) if failed else output, dtype)


@mutant("grid-stride-pointer", rejects="MSDA-50", origin="mmcv PR 1823")
class GridStridePointer(Kernel):
    """Moves a pointer inside a grid-stride loop: gradients of the weights are shifted from element 4,096 on."""

    def grad_weights(self, grad: Tensor, samples: Vectors, geometry: Geometry, weights: PerSample) -> PerSample:
        gradient = super().grad_weights(grad, samples, geometry, weights)
        rows = gradient.flatten(0, 2)
        if len(rows) > 4096:
            rows = torch.cat((rows[:4096], rows[4096:].roll(1, 0)))
        return rows.reshape(gradient.shape)


@mutant("vector-tail", rejects="MSDA-51", origin="float4 loads and stores")
class VectorTail(Kernel):
    """Loads four channels at a time and forgets the last D % 4."""

    def accumulate(self, samples: Vectors, weights: PerSample) -> Output:
        output = super().accumulate(samples, weights)
        output[..., output.shape[-1] // 4 * 4 :] = 0
        return output


@mutant("odd-channel-without-gradient", rejects="MSDA-51", origin="half2 atomics")
class OddChannelWithoutGradient(Kernel):
    """Adds gradients to pairs of channels and drops the last channel of an odd number."""

    def grad_value(self, grad: Tensor, geometry: Geometry, weights: PerSample, call: Call) -> Tensor:
        gradient = super().grad_value(grad, geometry, weights, call)
        gradient[..., gradient.shape[-1] // 2 * 2 :] = 0
        return gradient


@mutant("warp-wide-reduction", rejects="MSDA-51", origin="__shfl_down over 32 lanes, one channel each")
class WarpWideReduction(Kernel):
    """Reduces the gradient of the weights over the first 32 channels."""

    def grad_weights(self, grad: Tensor, samples: Vectors, geometry: Geometry, weights: PerSample) -> PerSample:
        return super().grad_weights(grad[..., :32], samples[..., :32], geometry, weights)


@mutant("power-of-two-reduction", rejects="MSDA-51", origin="tree reduction: for (s = D / 2; s > 0; s /= 2)")
class PowerOfTwoReduction(Kernel):
    """Halves the channels of the location gradient until one is left, and loses those that do not pair."""

    def slopes(self, corners: tuple[Vectors, ...], geometry: Geometry) -> tuple[Vectors, Vectors]:
        along_x, along_y = super().slopes(corners, geometry)
        channels = along_x.shape[-1]
        kept = 1 << (channels.bit_length() - 1)
        mask = torch.arange(channels, device=along_x.device) < kept
        return torch.where(mask, along_x, 0), torch.where(mask, along_y, 0)


@mutant("heads-in-pairs", rejects="MSDA-51", origin="two heads a warp")
class HeadsInPairs(Kernel):
    """Works on two heads at a time; the last of an odd number stays zero, if it is not the only one."""

    def accumulate(self, samples: Vectors, weights: PerSample) -> Output:
        output = super().accumulate(samples, weights)
        if output.shape[2] > 1:
            output[:, :, output.shape[2] // 2 * 2 :] = 0
        return output


@mutant("four-levels", rejects="MSDA-51", origin="loop over levels unrolled, shapes in constant memory")
class FourLevels(Kernel):
    """Has room for four levels and ignores the others."""

    def weigh(self, weights: PerSample, in_range: Mask) -> PerSample:
        levels = torch.arange(weights.shape[3], device=weights.device)[:, None]
        return super().weigh(torch.where(levels < 4, weights, 0), in_range)


@mutant("points-in-powers-of-two", rejects="MSDA-51", origin="template <int P> for 1, 2, 4, 8")
class PointsInPowersOfTwo(Kernel):
    """Has code for one, two, four and eight points, and rounds other numbers down."""

    def weigh(self, weights: PerSample, in_range: Mask) -> PerSample:
        points = weights.shape[4]
        kept = max(count for count in (0, 1, 2, 4, 8) if count <= points)
        return super().weigh(torch.where(torch.arange(points, device=weights.device) < kept, weights, 0), in_range)


@mutant("thin-maps", rejects="MSDA-51", origin="texture of at least two rows and columns; tt-metal 55133")
class ThinMaps(Kernel):
    """Reads nothing from a level with a side of one cell."""

    def in_range(self, x: PerSample, y: PerSample, height: PerLevel, width: PerLevel) -> Mask:
        return super().in_range(x, y, height, width) & (height > 1) & (width > 1)


@mutant("block-of-64-channels", rejects="MSDA-51", origin="one thread a channel, 64 threads a block")
class BlockOf64Channels(Kernel):
    """Computes 64 channels, one for each thread of its block, and leaves the others at zero."""

    def accumulate(self, samples: Vectors, weights: PerSample) -> Output:
        output = super().accumulate(samples, weights)
        output[..., 64:] = 0
        return output
