"""A multilayer perceptron and its backward, one overridable step after another. Clauses: spec chapter 3.

The mutants compute the right formula; what is wrong is the way they treat memory, modes, gradients and batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detr_conformance.evidence.registry import twin
from detr_reference.feed_forward.config import MLPConfig


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
