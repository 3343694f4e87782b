"""A multilayer perceptron with a backward of its own, and what can be wrong with any block. Clauses: spec chapter 3.

The mutants compute the right formula; what is wrong is the way they treat memory, modes, gradients and batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detr_conformance.evidence.registry import DEFAULT_FEATURES, mutant, twin
from detr_conformance.topics.positions.mutants.embeddings import SineByHand
from detr_reference.feed_forward.config import MLPConfig

PERCEPTRON = "mlp"
CAPTURED = (*DEFAULT_FEATURES, "compile", "export")


class OwnLinear(torch.autograd.Function):
    """x W^T + b, with the gradients written out."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return x @ weight.T + bias

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        grad = grads[0]
        rows = grad.flatten(0, -2)
        return grad @ weight, rows.T @ x.flatten(0, -2), rows.sum(0)


class Layers(nn.Module):
    """Linear layers with ReLU between them, one overridable step after another."""

    def __init__(self, config: MLPConfig, state_dict: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        sizes = [config.input_dim, *[config.hidden_dim] * (config.num_layers - 1), config.output_dim]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        if state_dict is not None:
            self.take(state_dict)

    def take(self, state_dict: Mapping[str, Tensor]) -> None:
        self.to(next(iter(state_dict.values())))
        self.load_state_dict(state_dict)

    @property
    def linears(self) -> list[nn.Linear]:
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]

    def forward(self, x: Tensor) -> Tensor:
        for i, layer in enumerate(self.linears):
            x = self.between(x) if i else x
            x = self.linear(x, layer)
        return x

    def between(self, x: Tensor) -> Tensor:
        return F.relu(x)

    def linear(self, x: Tensor, layer: nn.Linear) -> Tensor:
        return F.linear(x, layer.weight, layer.bias)


@twin("perceptron-own-backward", operation="mlp", origin="a fused linear layer with its own autograd function")
class WithOwnBackward(Layers):
    """Writes the backward of each linear layer out; autocast is left to the caller's dtype."""

    function: type[torch.autograd.Function] = OwnLinear

    def linear(self, x: Tensor, layer: nn.Linear) -> Tensor:
        x = x.to(layer.weight.dtype)
        with torch.autocast(x.device.type, enabled=False):
            return self.function.apply(x, layer.weight, layer.bias)


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


# -- repetition -----------------------------------------------------------------------------------------------


@mutant("block-caches-by-pointer", rejects="BLK-6", operation="mlp", origin="memoised position embeddings")
class CachesByPointer(Layers):
    """Returns the last result while its input lies where it lay."""

    last: tuple[Any, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        key = (x.data_ptr(), x.shape, x.stride(), x.dtype)
        if torch.is_grad_enabled():
            return super().forward(x)
        if self.last is None or self.last[0] != key:
            self.last = (key, super().forward(x))
        return self.last[1].clone()


@mutant("block-stale-weights", rejects="BLK-6", operation="mlp", origin="weights packed for a kernel at the first call")
class StaleWeights(Layers):
    """Packs its weights at the first call and keeps them."""

    packed: list[Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return super().forward(x)
        if self.packed is None:
            self.packed = [layer.weight.detach().clone() for layer in self.linears]
        for i, layer in enumerate(self.linears):
            x = F.linear(F.relu(x) if i else x, self.packed[i], layer.bias)
        return x


@mutant("block-random-order", rejects="BLK-7", operation="mlp", origin="atomic additions")
class RandomOrder(Layers):
    """Adds up the hidden units in another order at each call."""

    def linear(self, x: Tensor, layer: nn.Linear) -> Tensor:
        generator = torch.Generator()
        generator.seed()
        order = torch.randperm(x.shape[-1], generator=generator)
        weight: Tensor = layer.weight[:, order]
        parts = (x[..., order, None] * weight.T).unbind(-2)
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total + layer.bias


@mutant("block-seeds", rejects="BLK-8", operation="mlp", origin="torch.manual_seed in a forward, to be reproducible")
class Seeds(Layers):
    """Seeds the global generator."""

    def forward(self, x: Tensor) -> Tensor:
        torch.manual_seed(0)
        return super().forward(x)


@mutant("block-leaves-grad-mode", rejects="BLK-8", operation="mlp", origin="set_grad_enabled called, not entered")
class LeavesGradMode(Layers):
    """Switches gradients off after a call without any."""

    def forward(self, x: Tensor) -> Tensor:
        output = super().forward(x)
        if not x.requires_grad:
            torch.set_grad_enabled(False)
        return output


# -- gradients and modes --------------------------------------------------------------------------------------


@mutant("block-bias-detached", rejects="BLK-9", operation="mlp", origin="a fused kernel without a bias gradient")
class BiasDetached(Layers):
    """Gives no gradient to its last bias."""

    def forward(self, x: Tensor) -> Tensor:
        output = super().forward(x)
        bias: Tensor = self.linears[-1].bias
        return output - bias + bias.detach()


@mutant("block-input-detached", rejects="BLK-9", operation="mlp", origin="DINO issue 197: a detach in the wrong line")
class InputDetached(Layers):
    """Detaches what enters the last layer."""

    def between(self, x: Tensor) -> Tensor:
        return F.relu(x).detach()


class GradientAsIfContiguous(OwnLinear):
    """Reads the incoming gradient as if it were contiguous."""

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        grad = grads[0]
        steps = [1]
        for size in reversed(grad.shape[1:]):
            steps.insert(0, steps[0] * size)
        room = grad.untyped_storage().nbytes() // grad.element_size() - grad.storage_offset()
        if grad.numel() <= room:
            grad = grad.as_strided(grad.shape, steps)
        else:
            grad = torch.zeros(grad.shape, dtype=grad.dtype, device=grad.device)
        return OwnLinear.backward(ctx, grad)


@mutant(
    "block-gradient-as-contiguous", rejects="BLK-10", operation="mlp", origin="grad.data_ptr() in a custom backward"
)
class AssumesContiguousGradient(WithOwnBackward):
    """Takes any incoming gradient for a contiguous one."""

    function = GradientAsIfContiguous


class SpendsWhatItSaved(OwnLinear):
    """Uses the memory of what it saved for its result."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.x, ctx.weight = x.clone(), weight.clone()
        return x @ weight.T + bias

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rows = grads[0].flatten(0, -2)
        found = grads[0] @ ctx.weight, rows.T @ ctx.x.flatten(0, -2), rows.sum(0)
        ctx.weight.zero_()
        return found


@mutant("block-spends-saved", rejects="BLK-11", operation="mlp", origin="workspaces reused in a backward")
class SpendsSaved(WithOwnBackward):
    """Gives a second backward pass zeros."""

    function = SpendsWhatItSaved


@mutant("block-other-path-without-gradients", rejects="BLK-12", operation="mlp", origin="inference fast paths")
class OtherPathWithoutGradients(Layers):
    """Leaves the last bias out where no gradient is asked for."""

    def forward(self, x: Tensor) -> Tensor:
        output = super().forward(x)
        return output if torch.is_grad_enabled() else output - self.linears[-1].bias


@mutant(
    "block-other-path-in-training", rejects="BLK-13", operation="mlp", origin="self.training decides on a fast path"
)
class OtherPathInTraining(Layers):
    """Clamps the output while training."""

    def forward(self, x: Tensor) -> Tensor:
        output = super().forward(x)
        return output.clamp(max=0.5) if self.training else output


class MixesDtypes(OwnLinear):
    """Runs forward in the dtype of autocast and backward in whatever was saved."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.linear(x, weight, bias)


@mutant("block-autocast-mixes", rejects="BLK-14", operation="mlp", origin="autograd functions without custom_fwd")
class AutocastMixes(Layers):
    """Multiplies a bfloat16 gradient by float32 weights in its backward."""

    def linear(self, x: Tensor, layer: nn.Linear) -> Tensor:
        return MixesDtypes.apply(x, layer.weight, layer.bias)


@mutant("block-breaks-graph", rejects="BLK-15", operation="mlp", origin="a check of values", features=CAPTURED)
class BreaksGraph(Layers):
    """Looks at its input from Python."""

    def forward(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_exporting() and float(x.detach().abs().sum()) == 0:
            return super().forward(x) * 1
        return super().forward(x)


@mutant("block-not-exported", rejects="BLK-16", operation="mlp", origin="control flow by values", features=CAPTURED)
class NotExported(Layers):
    """Decides by its input which of two equal ways to take."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_exporting() and bool((x > 0).any()):
            return super().forward(x) * 1
        return super().forward(x)


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


@mutant(
    "block-sine-by-pointer",
    rejects="BLK-6",
    operation="sine_position_embedding",
    origin="transformers, models/detr/modeling_detr.py: an lru_cache keyed by the mask itself",
)
class SineByPointer(SineByHand):
    """Keeps the embedding of a mask, whatever becomes of the mask."""

    def __init__(self) -> None:
        self.kept: dict[Any, Tensor] = {}

    def __call__(self, mask: Tensor, **settings: Any) -> Tensor:
        key = (mask.data_ptr(), mask.shape, *settings.items())
        if key not in self.kept:
            self.kept[key] = super().__call__(mask, **settings)
        return self.kept[key].clone()
