"""Mutants of any block that are right until something around them changes (BLK-18, BLK-21, BLK-26 to BLK-29)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.every_block.mutants.perceptron import Layers, OwnLinear, WithOwnBackward
from detr_reference.feed_forward.config import MLPConfig


@mutant("block-detached-after-training", rejects="BLK-18", operation="mlp", origin="weights folded by train(False)")
class DetachedAfterTraining(Layers):
    """Once it was trained, evaluation takes its last layer for a constant."""

    trained = False

    def linear(self, x: Tensor, layer: nn.Linear) -> Tensor:
        self.trained = self.trained or self.training
        if self.training or not self.trained or layer is not self.linears[-1]:
            return super().linear(x, layer)
        return F.linear(x, layer.weight.detach(), layer.bias.detach())


class WithoutNanInHalf(OwnLinear):
    """Takes what is not finite out of an incoming gradient of 16 bits."""

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        grad = grads[0] if grads[0].itemsize > 2 else grads[0].nan_to_num()
        return OwnLinear.backward(ctx, grad)


@mutant("block-nan-to-num-in-half", rejects="BLK-21", operation="mlp", origin="nan_to_num against a run that diverged")
class NanToNumInHalf(WithOwnBackward):
    """Hides from a loss scaler that its scale was too large, in the dtypes that are scaled."""

    function = WithoutNanInHalf


class OnlyBesideTheWeights(OwnLinear):
    """Gives the argument its gradient where the weights get one."""

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found = OwnLinear.backward(ctx, *grads)
        return found if ctx.needs_input_grad[1] else (torch.zeros_like(found[0]), *found[1:])


@mutant("block-frozen-stops-gradients", rejects="BLK-26", operation="mlp", origin="needs_input_grad of the wrong one")
class FrozenStopsGradients(WithOwnBackward):
    """Passes no gradient through a frozen layer."""

    function = OnlyBesideTheWeights


@mutant("block-constant-argument", rejects="BLK-26", operation="mlp", origin="x.requires_grad for a mode of training")
class ConstantArgument(Layers):
    """Takes a call whose argument asks for no gradient for one of inference, but for the last layer."""

    def forward(self, x: Tensor) -> Tensor:
        last = self.linears[-1]
        with torch.set_grad_enabled(torch.is_grad_enabled() and x.requires_grad):
            for i, layer in enumerate(self.linears[:-1]):
                x = self.linear(self.between(x) if i else x, layer)
        return self.linear(self.between(x) if len(self.linears) > 1 else x, last)


@mutant("block-narrow-after-an-error", rejects="BLK-27", operation="mlp", origin="a fallback that is never left")
class NarrowAfterAnError(Layers):
    """After a call that raised it computes in bfloat16."""

    failed = False

    def forward(self, x: Tensor) -> Tensor:
        try:
            output = super().forward(x)
        except RuntimeError:
            self.failed = True
            raise
        return output.bfloat16().to(output.dtype) if self.failed else output


@mutant("block-overwrites-if-deterministic", rejects="BLK-27", operation="mlp", origin="index_put without accumulate")
class OverwritesIfDeterministic(Layers):
    """Where algorithms have to be deterministic the last of its hidden units overwrites the one before."""

    def between(self, x: Tensor) -> Tensor:
        x = super().between(x)
        if not torch.are_deterministic_algorithms_enabled():
            return x
        return torch.cat((x[..., :-2], x[..., -1:], x[..., -1:]), -1)


class SummedOverWhatIsShared(torch.autograd.Function):
    """Gives each image the gradient of all where they lie in the same place."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.shared = x.ndim > 1 and x.shape[0] > 1 and x.stride(0) == 0
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        grad = grads[0]
        return grad.sum(0, keepdim=True).expand_as(grad) if ctx.shared else grad


@mutant(
    "block-gradient-of-one-place", rejects="BLK-28", operation="mlp", origin="atomics at the argument's own strides"
)
class GradientOfOnePlace(Layers):
    """Writes the gradient of an expanded argument with the argument's strides."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(SummedOverWhatIsShared.apply(x))


@mutant(
    "block-packed-by-version", rejects="BLK-29", operation="mlp", origin="weights packed anew when _version changes"
)
class PackedByVersion(Layers):
    """Packs its weights again when a version says so: `.data` has one of its own."""

    packed: tuple[Any, list[Tensor]] | None = None

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return super().forward(x)
        key = [(layer.weight.data_ptr(), layer.weight._version) for layer in self.linears]
        if self.packed is None or self.packed[0] != key:
            self.packed = key, [layer.weight.detach().clone() for layer in self.linears]
        for i, layer in enumerate(self.linears):
            x = F.linear(self.between(x) if i else x, self.packed[1][i], layer.bias)
        return x


@mutant("block-parameters-in-a-list", rejects="BLK-29", operation="mlp", origin="flat weights collected in __init__")
class ParametersInAList(Layers):
    """Goes on with the parameters that it was made with."""

    def __init__(self, config: MLPConfig, state_dict: Mapping[str, Tensor] | None = None) -> None:
        super().__init__(config, state_dict)
        self.collected = [(layer.weight, layer.bias) for layer in self.linears]

    def forward(self, x: Tensor) -> Tensor:
        for i, (weight, bias) in enumerate(self.collected):
            x = F.linear(self.between(x) if i else x, weight, bias)
        return x
