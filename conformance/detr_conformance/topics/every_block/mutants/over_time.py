"""Mutants of any block whose fault shows in training, in copies, or in many calls (BLK-18 to BLK-25)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.every_block.mutants.perceptron import Layers, OwnLinear, WithOwnBackward
from detr_reference.feed_forward.config import MLPConfig


@mutant("block-detached-while-training", rejects="BLK-18", operation="mlp", origin="a detach meant for an ablation")
class DetachedWhileTraining(Layers):
    """Stops the gradient before its last layer in training mode."""

    def between(self, x: Tensor) -> Tensor:
        x = super().between(x)
        return x.detach() if self.training else x


@mutant("block-tenth-while-training", rejects="BLK-18", operation="mlp", origin="a learning rate put into the graph")
class TenthWhileTraining(Layers):
    """Lets a tenth of the gradient through to its last layer's parameters while training."""

    def linear(self, x: Tensor, layer: nn.Linear) -> Tensor:
        if not self.training or layer is not self.linears[-1]:
            return super().linear(x, layer)
        weight, bias = (p / 10 + (p * 0.9).detach() for p in (layer.weight, layer.bias))
        return F.linear(x, weight, bias)


class KeptInTheContext(OwnLinear):
    """Keeps its argument as an attribute, where no version is counted."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.x, ctx.weight = x, weight
        return x @ weight.T + bias

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        grad = grads[0]
        rows = grad.flatten(0, -2)
        return grad @ ctx.weight, rows.T @ ctx.x.flatten(0, -2), rows.sum(0)


@mutant("block-context-attributes", rejects="BLK-19", operation="mlp", origin="ctx.x = x in place of save_for_backward")
class ContextAttributes(WithOwnBackward):
    """Computes the weight gradient from what its argument has become."""

    function = KeptInTheContext


@mutant("block-overwrites-what-is-no-leaf", rejects="BLK-19", operation="mlp", origin="detach() for whoever is no leaf")
class OverwritesWhatIsNoLeaf(Layers):
    """Takes a copy of leaves alone, and so loses the first layer's gradient path of all other arguments."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.is_leaf else x.detach() + 0 * x)


@mutant("block-mask-by-shape", rejects="BLK-20", operation="mlp", origin="a ReLU mask kept by shape, to save memory")
class MaskByShape(Layers):
    """Pulls back through each ReLU of the latest call of that shape."""

    masks: dict[tuple[int, torch.Size], Tensor]

    def forward(self, x: Tensor) -> Tensor:
        if not hasattr(self, "masks"):
            self.masks = {}
        self.layer = 0
        return super().forward(x)

    def between(self, x: Tensor) -> Tensor:
        self.layer += 1
        self.masks[self.layer, x.shape] = (x > 0).detach()
        return _LatestMask.apply(x, self.masks, self.layer)


class _LatestMask(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, masks: dict[tuple[int, torch.Size], Tensor], layer: int) -> Tensor:
        ctx.masks, ctx.key = masks, (layer, x.shape)
        return x.relu()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return grads[0] * ctx.masks[ctx.key], None, None


class MadeFinite(OwnLinear):
    """Replaces what is not finite in the incoming gradient."""

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return OwnLinear.backward(ctx, grads[0].nan_to_num(0, 0, 0))


@mutant("block-gradient-made-finite", rejects="BLK-21", operation="mlp", origin="nan_to_num in backward")
class GradientMadeFinite(WithOwnBackward):
    """Hides NaN and infinity from whoever looks for them."""

    function = MadeFinite


class SmallSkipped(OwnLinear):
    """Skips what seems too small to matter."""

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        grad = grads[0]
        return OwnLinear.backward(ctx, torch.where(grad.abs() < 2**-20, 0, grad))


@mutant("block-small-gradients-skipped", rejects="BLK-21", operation="mlp", origin="sparse updates with a threshold")
class SmallGradientsSkipped(WithOwnBackward):
    """Takes incoming gradients below 2^-20 for zero."""

    function = SmallSkipped


@mutant("block-scaled-by-the-first-batch", rejects="BLK-22", operation="mlp", origin="a divisor that is kept")
class ScaledByTheFirstBatch(Layers):
    """Multiplies by its batch size over that of its first call."""

    first: int

    def forward(self, x: Tensor) -> Tensor:
        self.first = getattr(self, "first", len(x))
        return super().forward(x) * (len(x) / self.first)


@mutant("block-folded-after-training", rejects="BLK-22", operation="mlp", origin="weights packed when eval() is called")
class FoldedAfterTraining(Layers):
    """Rounds its weights to bfloat16 once it goes back to evaluation."""

    def train(self, mode: bool = True) -> FoldedAfterTraining:
        if self.training is False and mode:
            self.trained = True
        return super().train(mode)

    def linear(self, x: Tensor, layer: nn.Linear) -> Tensor:
        if self.training or not getattr(self, "trained", False):
            return super().linear(x, layer)
        return F.linear(x, layer.weight.to(torch.bfloat16).to(x), layer.bias)


@mutant("block-shallow-copy", rejects="BLK-23", operation="mlp", origin="a __deepcopy__ that spares memory")
class ShallowCopy(Layers):
    """Copies of it have its own parameters."""

    def __deepcopy__(self, memory: dict[int, Any]) -> ShallowCopy:
        copied = ShallowCopy.__new__(ShallowCopy)
        copied.__dict__.update(self.__dict__)
        return copied


@mutant("block-copy-begins-anew", rejects="BLK-23", operation="mlp", origin="__reduce__ with the configuration alone")
class CopyBeginsAnew(Layers):
    """Copies of it are made from the configuration, and have initial parameters."""

    def __init__(self, config: MLPConfig, state_dict: Mapping[str, Tensor] | None = None) -> None:
        super().__init__(config, state_dict)
        self.config = config

    def __deepcopy__(self, memory: dict[int, Any]) -> CopyBeginsAnew:
        return CopyBeginsAnew(self.config).to(self.linears[0].weight).eval()


@mutant("block-scratch-on-the-object", rejects="BLK-24", operation="mlp", origin="self.buffer = ... in forward")
class ScratchOnTheObject(Layers):
    """Keeps what is between its layers on itself, where another thread finds it."""

    def between(self, x: Tensor) -> Tensor:
        self.scratch = super().between(x)
        time.sleep(1e-3)  # as while a kernel runs
        return self.scratch


@mutant("block-zeros-after-nine-hundred", rejects="BLK-25", operation="mlp", origin="a ring of events that overflows")
class ZerosAfterNineHundred(Layers):
    """Gives zeros from its 900th call on."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x) * (self.calls < 900)


@mutant("block-keeps-its-outputs", rejects="BLK-25", operation="mlp", origin="a list that is never emptied")
class KeepsItsOutputs(Layers):
    """Remembers every output."""

    def forward(self, x: Tensor) -> Tensor:
        output = super().forward(x)
        self.__dict__.setdefault("outputs", []).append(output.detach().clone())
        return output
