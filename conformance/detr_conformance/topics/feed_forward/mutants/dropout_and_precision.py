"""Mutants of the feed-forward network: tokens, dropout, precision, gradients (FFN-9 to FFN-13)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.feed_forward.mutants.feed_forward import HandWrittenFeedForward, Tokens

# -- tokens, dropout ------------------------------------------------------------------------------------------


@mutant(
    "ffn-non-finite-skipped", rejects="FFN-9", operation="feed_forward", origin="a guard against overflow in a block"
)
class NonFiniteSkipped(HandWrittenFeedForward):
    """Returns the identity alone if any number of the call is not finite."""

    def network(self, x: Tokens) -> Tokens:
        out = super().network(x)
        return out if out.isfinite().all() else torch.zeros_like(out)


@mutant(
    "ffn-scaled-by-largest", rejects="FFN-9", operation="feed_forward", origin="one scale a tensor, against overflow"
)
class ScaledByLargest(HandWrittenFeedForward):
    """Cuts hidden channels off at 16 times the mean of the call."""

    def hidden(self, x: Tokens) -> Tokens:
        hidden = super().hidden(x)
        largest = 16 * hidden.abs().mean().detach()
        return hidden.clamp(-largest, largest)


@mutant(
    "ffn-batch-and-length-only", rejects="FFN-10", operation="feed_forward", origin="1 x 1 convolution over (B, C, L)"
)
class BatchAndLengthOnly(HandWrittenFeedForward):
    """Has a convolution for each linear layer, and takes exactly three axes."""

    def linear(self, layer: nn.Linear, x: Tokens) -> Tokens:
        batch, length, _ = x.shape
        return F.conv1d(x.transpose(1, 2), layer.weight[..., None], layer.bias).transpose(1, 2).view(batch, length, -1)


@mutant("ffn-leading-axes-joined", rejects="FFN-10", operation="feed_forward", origin="x.flatten(0, 1) and back")
class LeadingAxesJoined(HandWrittenFeedForward):
    """Returns at most three axes, the leading ones joined."""

    def forward(self, x: Tokens, identity: Tokens | None = None) -> Tokens:
        output = super().forward(x, identity)
        return output.flatten(0, -3) if output.ndim > 3 else output


@mutant(
    "ffn-no-hidden-dropout", rejects="FFN-11", operation="feed_forward", origin="activation_dropout=0 of transformers"
)
class NoHiddenDropout(HandWrittenFeedForward):
    """Drops after the last layer alone."""

    def hidden_dropout(self, h: Tokens) -> Tokens:
        return h


@mutant("ffn-no-final-dropout", rejects="FFN-11", operation="feed_forward", origin="dropout between the layers alone")
class NoFinalDropout(HandWrittenFeedForward):
    """Does not drop after the last layer."""

    def final_dropout(self, out: Tokens) -> Tokens:
        return out


@mutant("ffn-sum-dropped", rejects="FFN-11", operation="feed_forward", origin="dropout(x + ffn(x))")
class SumDropped(HandWrittenFeedForward):
    """Drops channels of the sum with the identity."""

    def final_dropout(self, out: Tokens) -> Tokens:
        return out

    def result(self, out: Tokens, x: Tokens, identity: Tokens | None) -> Tokens:
        return self.drop(super().result(out, x, identity))


@mutant(
    "ffn-dropped-before-activation", rejects="FFN-11", operation="feed_forward", origin="Linear, dropout, activation"
)
class DroppedBeforeActivation(HandWrittenFeedForward):
    """Drops and rescales before the activation, which GELU notices."""

    def activated(self, h: Tokens) -> Tokens:
        return super().activated(self.drop(h))

    def hidden_dropout(self, h: Tokens) -> Tokens:
        return h


@mutant("ffn-tokens-dropped", rejects="FFN-11", operation="feed_forward", origin="drop path")
class TokensDropped(HandWrittenFeedForward):
    """Drops whole tokens after the last layer."""

    def final_dropout(self, out: Tokens) -> Tokens:
        return out * self.drop(torch.ones_like(out[..., :1]))


@mutant("ffn-dropout-not-rescaled", rejects="FFN-11", operation="feed_forward", origin="x * mask")
class DropoutNotRescaled(HandWrittenFeedForward):
    """Does not divide what is kept by 1 - p."""

    def drop(self, h: Tokens) -> Tokens:
        return super().drop(h) * ((1 - self.config.ffn_drop) if self.training else 1)


# -- numbers --------------------------------------------------------------------------------------------------


@mutant("ffn-products-in-bfloat16", rejects="FFN-12", operation="feed_forward", origin="autocast left on")
class ProductsInBfloat16(HandWrittenFeedForward):
    """Rounds what enters each product to bfloat16."""

    def linear(self, layer: nn.Linear, x: Tokens) -> Tokens:
        return super().linear(layer, x.bfloat16().to(x.dtype))


@mutant(
    "ffn-accumulated-in-half", rejects="FFN-12", operation="feed_forward", origin="an accumulator in the claimed dtype"
)
class AccumulatedInHalf(HandWrittenFeedForward):
    """Adds up half-precision products in half precision, one after another."""

    def linear(self, layer: nn.Linear, x: Tokens) -> Tokens:
        if x.element_size() > 2:
            return super().linear(layer, x)
        total = layer.bias.expand(*x.shape[:-1], -1)
        for channel in range(x.shape[-1]):
            total = total + x[..., channel, None] * layer.weight[:, channel]
        return total


@mutant("ffn-identity-detached", rejects="FFN-13", operation="feed_forward", origin="identity.detach(), to save memory")
class IdentityDetached(HandWrittenFeedForward):
    """Sends no gradient through the identity."""

    def result(self, out: Tokens, x: Tokens, identity: Tokens | None) -> Tokens:
        return super().result(out, x.detach(), None if identity is None else identity.detach() + 0 * identity)


@mutant("ffn-relu-passes-gradient", rejects="FFN-13", operation="feed_forward", origin="straight-through estimator")
class ReluPassesGradient(HandWrittenFeedForward):
    """Passes the gradient of a hidden channel on even where the ReLU has cut it off."""

    def relu(self, h: Tokens) -> Tokens:
        return h + (super().relu(h) - h).detach()
