"""Mutants of any block: gradients, training, autocast, capture, export (BLK-9 to BLK-16, BLK-34, BLK-35)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detr_conformance.evidence.registry import DEFAULT_FEATURES, mutant
from detr_conformance.topics.every_block.mutants.perceptron import Layers, OwnLinear, WithOwnBackward

CAPTURED = (*DEFAULT_FEATURES, "compile", "export")


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


@mutant("block-without-graph", rejects="BLK-34", operation="mlp", origin="no_grad left on forward after a benchmark")
class WithoutGraph(Layers):
    """Computes its output without a graph."""

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


@mutant("block-own-names", rejects="BLK-35", operation="mlp", origin="a port with names of its own")
class OwnNames(Layers):
    """Says of no parameter which of the reference's it is."""

    def spec_parameters(self) -> dict[str, Tensor]:
        return {f"fc{i}.{name}": p for i, linear in enumerate(self.linears) for name, p in linear.named_parameters()}


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
