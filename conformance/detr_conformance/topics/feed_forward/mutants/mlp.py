"""The MLP, one overridable step after another, and its mutants. Clauses: spec chapter 6, FFN-14 to FFN-20."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from detr_conformance.evidence.registry import mutant, twin
from detr_reference.feed_forward.config import MLPConfig

Tokens = Float[Tensor, "*leading channel"]


@twin("mlp-by-hand", operation="mlp", origin="facebookresearch/detr, models/detr.py (MLP)")
class HandWrittenMLP(nn.Module):
    """Matrix products with a ReLU after each but the last."""

    def __init__(self, config: MLPConfig, state_dict: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        self.config = config
        widths = [config.input_dim, *[config.hidden_dim] * (config.num_layers - 1), config.output_dim]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        if state_dict is not None:
            self.to(next(iter(state_dict.values())).dtype)
            self.load_state_dict(state_dict)

    def chosen(self) -> list[nn.Linear]:
        """The layers in the order of their use."""
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]

    def forward(self, x: Tokens) -> Tokens:
        *hidden, last = self.chosen()
        for number, layer in enumerate(hidden):
            x = self.step(number, x, self.activated(number, self.linear(layer, x)))
        return self.result(x, self.linear(last, x))

    def linear(self, layer: nn.Linear, x: Tokens) -> Tokens:
        return torch.matmul(x, layer.weight.T) + layer.bias

    def activated(self, number: int, h: Tokens) -> Tokens:
        return h.clamp(min=0)

    def step(self, number: int, before: Tokens, after: Tokens) -> Tokens:
        return after

    def result(self, before: Tokens, out: Tokens) -> Tokens:
        return out


@mutant("mlp-without-biases", rejects="FFN-14", operation="mlp", origin="bias=False, as before a norm")
class WithoutBiases(HandWrittenMLP):
    """Leaves out the biases."""

    def linear(self, layer: nn.Linear, x: Tokens) -> Tokens:
        return torch.matmul(x, layer.weight.T)


@mutant("mlp-two-layers-only", rejects="FFN-14", operation="mlp", origin="Linear, ReLU, Linear, whatever num_layers")
class TwoLayersOnly(HandWrittenMLP):
    """Skips all layers but the first and the last."""

    def chosen(self) -> list[nn.Linear]:
        layers = super().chosen()
        return layers[:1] + layers[1:][-1:]


@mutant("mlp-hidden-layer-repeated", rejects="FFN-14", operation="mlp", origin="[layer] * n shares parameters")
class HiddenLayerRepeated(HandWrittenMLP):
    """Uses the first of the middle layers for all of them."""

    def chosen(self) -> list[nn.Linear]:
        layers = super().chosen()
        return [*layers[:1], *layers[1:2] * (len(layers) - 2), *layers[1:][-1:]]


@mutant("mlp-relu-at-the-end", rejects="FFN-15", operation="mlp", origin="for layer in layers: x = relu(layer(x))")
class ReluAtTheEnd(HandWrittenMLP):
    """Applies ReLU to the output, where there are several layers."""

    def result(self, before: Tokens, out: Tokens) -> Tokens:
        return out.relu() if self.config.num_layers > 1 else out


@mutant("mlp-gelu", rejects="FFN-15", operation="mlp", origin="timm's Mlp")
class Gelu(HandWrittenMLP):
    """Has GELU between the layers."""

    def activated(self, number: int, h: Tokens) -> Tokens:
        return nn.functional.gelu(h)


@mutant("mlp-relu-once", rejects="FFN-15", operation="mlp", origin="one activation between two groups of layers")
class ReluOnce(HandWrittenMLP):
    """Has a ReLU after the first layer alone."""

    def activated(self, number: int, h: Tokens) -> Tokens:
        return super().activated(number, h) if number == 0 else h


@mutant("mlp-input-rectified", rejects="FFN-15", operation="mlp", origin="pre-activation, as in ResNet v2")
class InputRectified(HandWrittenMLP):
    """Applies ReLU before every layer instead of after it, where there are several."""

    def linear(self, layer: nn.Linear, x: Tokens) -> Tokens:
        return super().linear(layer, x.relu() if self.config.num_layers > 1 else x)

    def activated(self, number: int, h: Tokens) -> Tokens:
        return h


@mutant("mlp-one-layer-rectified", rejects="FFN-16", operation="mlp", origin="the last layer told by i > 0")
class OneLayerRectified(HandWrittenMLP):
    """Applies ReLU to the output of a single layer."""

    def result(self, before: Tokens, out: Tokens) -> Tokens:
        return out.relu() if self.config.num_layers == 1 else out


@mutant(
    "mlp-two-layers-at-least", rejects="FFN-16", operation="mlp", origin="first and last layer built outside the loop"
)
class TwoLayersAtLeast(HandWrittenMLP):
    """Refuses to be built with one layer."""

    def __init__(self, config: MLPConfig, state_dict: Mapping[str, Tensor] | None = None) -> None:
        if config.num_layers < 2:
            raise ValueError("num_layers must be at least 2")
        super().__init__(config, state_dict)


@mutant("mlp-input-added", rejects="FFN-17", operation="mlp", origin="residual where the widths allow it")
class InputAdded(HandWrittenMLP):
    """Adds its input to the output if that is as wide."""

    def forward(self, x: Tokens) -> Tokens:
        out = super().forward(x)
        return out + x if self.config.num_layers > 1 and out.shape == x.shape else out


@mutant("mlp-hidden-layers-added", rejects="FFN-17", operation="mlp", origin="residual MLP")
class HiddenLayersAdded(HandWrittenMLP):
    """Adds each hidden layer to the one after the next."""

    def step(self, number: int, before: Tokens, after: Tokens) -> Tokens:
        return before + after if number > 1 and before.shape == after.shape else after


@mutant("mlp-batch-and-length-only", rejects="FFN-18", operation="mlp", origin="1 x 1 convolution over (B, C, L)")
class BatchAndLengthOnly(HandWrittenMLP):
    """Takes exactly three axes."""

    def forward(self, x: Tokens) -> Tokens:
        batch, length, _ = x.shape
        return super().forward(x).view(batch, length, -1)


@mutant("mlp-non-finite-skipped", rejects="FFN-18", operation="mlp", origin="nan_to_num of a whole prediction")
class NonFiniteSkipped(HandWrittenMLP):
    """Returns zeros if any number of the call is not finite."""

    def result(self, before: Tokens, out: Tokens) -> Tokens:
        return out if out.isfinite().all() else torch.zeros_like(out)


@mutant("mlp-products-in-bfloat16", rejects="FFN-19", operation="mlp", origin="autocast left on in the heads")
class ProductsInBfloat16(HandWrittenMLP):
    """Rounds what enters each product to bfloat16."""

    def linear(self, layer: nn.Linear, x: Tokens) -> Tokens:
        return super().linear(layer, x.bfloat16().to(x.dtype))


@mutant("mlp-input-detached", rejects="FFN-20", operation="mlp", origin="a head that must not train the backbone")
class InputDetached(HandWrittenMLP):
    """Sends no gradient to its input."""

    def forward(self, x: Tokens) -> Tokens:
        return super().forward(x.detach() + 0 * x)


@mutant("mlp-relu-passes-gradient", rejects="FFN-20", operation="mlp", origin="straight-through estimator")
class ReluPassesGradient(HandWrittenMLP):
    """Passes the gradient of a hidden channel on even where the ReLU has cut it off."""

    def activated(self, number: int, h: Tokens) -> Tokens:
        return h + (super().activated(number, h) - h).detach()
