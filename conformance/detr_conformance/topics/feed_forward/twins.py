"""Right feed-forward networks and MLPs, written differently."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from detr_conformance.evidence.registry import twin
from detr_conformance.topics.feed_forward.mutants.feed_forward import HandWrittenFeedForward, Tokens
from detr_conformance.topics.feed_forward.mutants.mlp import HandWrittenMLP


@twin(
    "feed-forward-in-slices", operation="feed_forward", origin="tensor parallelism: hidden channels on several devices"
)
class InSlices(HandWrittenFeedForward):
    """Adds up what three slices of the last hidden layer contribute, in float32 or better."""

    def last(self, h: Tokens) -> Tokens:
        layer, wide = self.linears()[-1], torch.promote_types(h.dtype, torch.float32)
        total = layer.bias.to(wide)
        for part, weight in zip(h.to(wide).tensor_split(3, -1), layer.weight.to(wide).tensor_split(3, 1), strict=True):
            total = total + F.linear(part, weight)
        return total.to(h.dtype)


@twin("feed-forward-as-convolution", operation="feed_forward", origin="1 x 1 convolutions over channels-first tokens")
class AsConvolution(HandWrittenFeedForward):
    """Writes each linear layer as a convolution with a kernel of one token."""

    def linear(self, layer: nn.Linear, x: Tokens) -> Tokens:
        tokens = x.reshape(1, -1, x.shape[-1]).transpose(1, 2)
        mapped = F.conv1d(tokens, layer.weight[..., None], layer.bias)
        return mapped.transpose(1, 2).reshape(*x.shape[:-1], -1)


@twin("feed-forward-activation-written-out", operation="feed_forward", origin="BERT's original gelu")
class ActivationWrittenOut(HandWrittenFeedForward):
    """Writes GELU with erf, and ReLU as a choice, in float32 or better."""

    def gelu(self, h: Tokens) -> Tokens:
        wide = h.to(torch.promote_types(h.dtype, torch.float32))
        return (wide * 0.5 * torch.erfc(wide * -math.sqrt(0.5))).to(h.dtype)

    def relu(self, h: Tokens) -> Tokens:
        return torch.where(h > 0, h, h * 0)


@twin("mlp-token-by-token", operation="mlp", origin="vmap over a head for one query")
class TokenByToken(HandWrittenMLP):
    """Maps the MLP of a single token over all tokens."""

    def forward(self, x: Tokens) -> Tokens:
        tokens = x.reshape(-1, x.shape[-1])
        return torch.vmap(super().forward)(tokens).reshape(*x.shape[:-1], -1)


@twin("mlp-in-float32", operation="mlp", origin="heads kept out of autocast")
class InFloat32(HandWrittenMLP):
    """Computes in float32 or better and rounds once, at the end."""

    def forward(self, x: Tokens) -> Tokens:
        return super().forward(x.to(torch.promote_types(x.dtype, torch.float32))).to(x.dtype)

    def linear(self, layer: nn.Linear, x: Tokens) -> Tokens:
        return torch.matmul(x, layer.weight.T.to(x.dtype)) + layer.bias
