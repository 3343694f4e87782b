"""The feed-forward network, one overridable step after another, and its mutants. Clauses: spec chapter 6.

The hand-written network shares only parameter names and configuration with the reference. Unchanged it is a twin.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from detr_conformance.evidence.registry import mutant, twin
from detr_reference.feed_forward.config import FeedForwardConfig

Tokens = Float[Tensor, "*leading channel"]


@twin("feed-forward-by-hand", operation="feed_forward", origin="facebookresearch/detr, linear1 and linear2 of a layer")
class HandWrittenFeedForward(nn.Module):
    """Matrix products and functions, a layer after another."""

    def __init__(self, config: FeedForwardConfig, state_dict: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        self.config = config
        wide, narrow = config.feedforward_dim, config.embed_dim
        inputs = [narrow] + [wide] * (config.num_fcs - 2)
        hidden = [nn.Sequential(nn.Linear(width, wide)) for width in inputs]
        self.layers = nn.Sequential(*hidden, nn.Linear(wide, narrow))
        if state_dict is not None:
            self.to(next(iter(state_dict.values())).dtype)
            self.load_state_dict(state_dict)

    def hidden_layers(self) -> list[nn.Linear]:
        return self.linears()[:-1]

    def linears(self) -> list[nn.Linear]:
        return [part for part in self.layers.modules() if isinstance(part, nn.Linear)]

    def forward(self, x: Tokens, identity: Tokens | None = None) -> Tokens:
        return self.result(self.network(x), x, identity)

    def network(self, x: Tokens) -> Tokens:
        return self.final_dropout(self.last(self.hidden(x)))

    def hidden(self, x: Tokens) -> Tokens:
        for layer in self.hidden_layers():
            x = self.hidden_dropout(self.activated(self.linear(layer, x)))
        return x

    def linear(self, layer: nn.Linear, x: Tokens) -> Tokens:
        return torch.matmul(x, layer.weight.T) + layer.bias

    def activated(self, h: Tokens) -> Tokens:
        return self.relu(h) if self.config.activation == "relu" else self.gelu(h)

    def relu(self, h: Tokens) -> Tokens:
        return h.clamp(min=0)

    def gelu(self, h: Tokens) -> Tokens:
        return F.gelu(h)

    def last(self, h: Tokens) -> Tokens:
        return self.linear(self.linears()[-1], h)

    def drop(self, h: Tokens) -> Tokens:
        return F.dropout(h, self.config.ffn_drop, self.training)

    def hidden_dropout(self, h: Tokens) -> Tokens:
        return self.drop(h)

    def final_dropout(self, out: Tokens) -> Tokens:
        return self.drop(out)

    def result(self, out: Tokens, x: Tokens, identity: Tokens | None) -> Tokens:
        if not self.config.add_identity:
            return out
        return out + (x if identity is None else identity)


# -- the network ----------------------------------------------------------------------------------------------


@mutant("ffn-last-bias-missing", rejects="FFN-1", operation="feed_forward", origin="bias=False on the way out")
class LastBiasMissing(HandWrittenFeedForward):
    """Leaves out the bias of the last layer."""

    def last(self, h: Tokens) -> Tokens:
        return torch.matmul(h, self.linears()[-1].weight.T)


@mutant(
    "ffn-two-layers-only", rejects="FFN-1", operation="feed_forward", origin="linear1 and linear2, whatever num_fcs"
)
class TwoLayersOnly(HandWrittenFeedForward):
    """Skips the layers between the first and the last."""

    def hidden_layers(self) -> list[nn.Linear]:
        return super().hidden_layers()[:1]


@mutant("ffn-middle-layer-repeated", rejects="FFN-1", operation="feed_forward", origin="[layer] * (num_fcs - 2)")
class MiddleLayerRepeated(HandWrittenFeedForward):
    """Uses the first of the middle layers for all of them."""

    def hidden_layers(self) -> list[nn.Linear]:
        first, *middle = super().hidden_layers()
        return [first, *middle[:1] * len(middle)]


@mutant("ffn-leaky-relu", rejects="FFN-2", operation="feed_forward", origin="the activation of YOLO's blocks")
class LeakyRelu(HandWrittenFeedForward):
    """Lets a hundredth of negative numbers through."""

    def relu(self, h: Tokens) -> Tokens:
        return F.leaky_relu(h, 0.01)


@mutant("ffn-relu-capped", rejects="FFN-2", operation="feed_forward", origin="ReLU6 of mobile networks")
class ReluCapped(HandWrittenFeedForward):
    """Cuts hidden channels off at 6."""

    def relu(self, h: Tokens) -> Tokens:
        return F.relu6(h)


@mutant("ffn-always-gelu", rejects="FFN-2", operation="feed_forward", origin="activation hard-coded as in ViT")
class AlwaysGelu(HandWrittenFeedForward):
    """Has GELU whatever the configuration says."""

    def relu(self, h: Tokens) -> Tokens:
        return self.gelu(h)


@mutant("ffn-always-relu", rejects="FFN-3", operation="feed_forward", origin="activation hard-coded as in DETR")
class AlwaysRelu(HandWrittenFeedForward):
    """Has ReLU whatever the configuration says."""

    def gelu(self, h: Tokens) -> Tokens:
        return self.relu(h)


@mutant("ffn-gelu-tanh", rejects="FFN-3", operation="feed_forward", origin="jax.nn.gelu, whose default it is")
class GeluTanh(HandWrittenFeedForward):
    """Approximates GELU by tanh."""

    def gelu(self, h: Tokens) -> Tokens:
        return F.gelu(h, approximate="tanh")


@mutant("ffn-gelu-sigmoid", rejects="FFN-3", operation="feed_forward", origin="quick_gelu of CLIP")
class GeluSigmoid(HandWrittenFeedForward):
    """Approximates GELU by x * sigmoid(1.702 x)."""

    def gelu(self, h: Tokens) -> Tokens:
        return h * torch.sigmoid(1.702 * h)


@mutant("ffn-activation-at-the-end", rejects="FFN-4", operation="feed_forward", origin="activation after every layer")
class ActivationAtTheEnd(HandWrittenFeedForward):
    """Activates the output of the last layer too."""

    def last(self, h: Tokens) -> Tokens:
        return self.activated(super().last(h))


# -- the identity ---------------------------------------------------------------------------------------------


@mutant("ffn-no-identity", rejects="FFN-5", operation="feed_forward", origin="the addition left to the layer")
class NoIdentity(HandWrittenFeedForward):
    """Returns the network's output alone."""

    def result(self, out: Tokens, x: Tokens, identity: Tokens | None) -> Tokens:
        return out


@mutant("ffn-identity-twice", rejects="FFN-5", operation="feed_forward", origin="added in the network and in the layer")
class IdentityTwice(HandWrittenFeedForward):
    """Adds the identity twice."""

    def result(self, out: Tokens, x: Tokens, identity: Tokens | None) -> Tokens:
        return super().result(super().result(out, x, identity), x, identity)


@mutant("ffn-sum-rectified", rejects="FFN-5", operation="feed_forward", origin="the block of a ResNet")
class SumRectified(HandWrittenFeedForward):
    """Applies ReLU to the sum with the identity."""

    def result(self, out: Tokens, x: Tokens, identity: Tokens | None) -> Tokens:
        return super().result(out, x, identity).relu()


@mutant("ffn-no-default-identity", rejects="FFN-6", operation="feed_forward", origin="if identity is not None")
class NoDefaultIdentity(HandWrittenFeedForward):
    """Adds an identity only if one is given."""

    def result(self, out: Tokens, x: Tokens, identity: Tokens | None) -> Tokens:
        return out if identity is None else super().result(out, x, identity)


@mutant("ffn-identity-ignored", rejects="FFN-7", operation="feed_forward", origin="x + ffn(x)")
class IdentityIgnored(HandWrittenFeedForward):
    """Adds x, whatever identity is given."""

    def result(self, out: Tokens, x: Tokens, identity: Tokens | None) -> Tokens:
        return super().result(out, x, None)


@mutant("ffn-identity-and-x", rejects="FFN-7", operation="feed_forward", origin="identity taken for a second residual")
class IdentityAndX(HandWrittenFeedForward):
    """Adds x as well as the identity."""

    def result(self, out: Tokens, x: Tokens, identity: Tokens | None) -> Tokens:
        both = super().result(out, x, identity)
        return both if identity is None or not self.config.add_identity else both + x


@mutant("ffn-identity-always", rejects="FFN-8", operation="feed_forward", origin="add_identity accepted and not used")
class IdentityAlways(HandWrittenFeedForward):
    """Adds the identity even where the configuration says not to."""

    def result(self, out: Tokens, x: Tokens, identity: Tokens | None) -> Tokens:
        return out + (x if identity is None else identity)


@mutant(
    "ffn-given-identity-added", rejects="FFN-8", operation="feed_forward", origin="add_identity taken for the default"
)
class GivenIdentityAdded(HandWrittenFeedForward):
    """Adds an identity that is given even where the configuration says not to."""

    def result(self, out: Tokens, x: Tokens, identity: Tokens | None) -> Tokens:
        return super().result(out, x, identity) if identity is None else out + identity


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
