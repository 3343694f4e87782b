"""Mutants of any block: dtype, arguments, strides, the output's memory, the images of a batch (BLK-1 to 5, BLK-17)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.every_block.mutants.perceptron import Layers, OwnLinear, WithOwnBackward

# -- form -----------------------------------------------------------------------------------------------------


@mutant("block-returns-float32", rejects="BLK-1", operation="mlp", origin="kernels that accumulate in float32")
class ReturnsFloat32(Layers):
    """Returns its accumulator without rounding it to the dtype of the call."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).float()


@mutant("block-shifts-in-place", rejects="BLK-2", operation="mlp", origin="masked_fill_ or add_ on the caller's tensor")
class ShiftsInPlace(Layers):
    """Adds its largest number to its input in place, and takes it away again."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x.copy_(x + x.abs().amax() - x.abs().amax())
        return super().forward(x)


class ChangesGradient(OwnLinear):
    """Scales the incoming gradient in place."""

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found = OwnLinear.backward(ctx, *grads)
        grads[0].mul_(0)
        return found


@mutant("block-backward-in-place", rejects="BLK-2", operation="mlp", origin="grad.mul_ in a custom backward")
class BackwardInPlace(WithOwnBackward):
    """Overwrites the gradient of its output."""

    function = ChangesGradient


@mutant("block-adopts-state", rejects="BLK-3", operation="mlp", origin="nn.Parameter(state_dict[name])")
class AdoptsState(Layers):
    """Makes parameters of the state dict's own tensors."""

    def take(self, state_dict: Mapping[str, Tensor]) -> None:
        for i, layer in enumerate(self.linears):
            layer.weight = nn.Parameter(state_dict[f"layers.{i}.weight"])
            layer.bias = nn.Parameter(state_dict[f"layers.{i}.bias"])


@mutant("block-assumes-contiguous", rejects="BLK-4", operation="mlp", origin="data_ptr() handed to a kernel")
class AssumesContiguous(Layers):
    """Reads its input as if it were contiguous."""

    def forward(self, x: Tensor) -> Tensor:
        steps = [1]
        for size in reversed(x.shape[1:]):
            steps.insert(0, steps[0] * size)
        return super().forward(x.as_strided(x.shape, steps))


@mutant("block-one-buffer", rejects="BLK-5", operation="mlp", origin="static output buffers of captured CUDA graphs")
class OneBuffer(Layers):
    """Hands out one buffer again and again while no gradient is asked for."""

    buffer: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        output = super().forward(x)
        if torch.is_grad_enabled():
            return output
        if self.buffer is None or self.buffer.shape != output.shape or self.buffer.dtype != output.dtype:
            self.buffer = torch.empty_like(output)
        return self.buffer.copy_(output)


# -- batches --------------------------------------------------------------------------------------------------


@mutant("block-batch-scale", rejects="BLK-17", operation="mlp", origin="one quantisation scale a batch")
class BatchScale(Layers):
    """Scales by the largest number of the batch, and back."""

    def forward(self, x: Tensor) -> Tensor:
        scale = 2.0 ** x.detach().abs().amax().float().log2().ceil()
        scale = scale.to(x.dtype)
        return super().forward(x / scale * scale)


@mutant("block-pairs-of-images", rejects="BLK-17", operation="mlp", origin="a tile of two images without a tail")
class PairsOfImages(Layers):
    """Leaves the last image of an odd batch as it is in the first one."""

    def forward(self, x: Tensor) -> Tensor:
        output = super().forward(x)
        if x.shape[0] % 2:
            output = torch.cat((output[:-1], torch.zeros_like(output[-1:])))
        return output


@mutant("block-squeezes", rejects="BLK-17", operation="mlp", origin="squeeze() of a batch of one image")
class Squeezes(Layers):
    """Drops the axis of a batch of one."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).squeeze(0)
