"""Mutants of the feed-forward network: its layers, its activation, what is added (FFN-1 to FFN-8)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.feed_forward.mutants.feed_forward import HandWrittenFeedForward, Tokens

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
