"""Mutants of transformer layers: the layer norm and the feed-forward network (TL-20, TL-21)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.transformer.mutants.layers import Call, HandWrittenLayer, Streams, Tokens

# -- norm -----------------------------------------------------------------------------------------------------


@mutant("layer-epsilon-of-timm", rejects="TL-20", operation="encoder_layer", origin="timm's 1e-6")
class EpsilonOfTimm(HandWrittenLayer):
    """Adds 1e-6 to the variance."""

    def epsilon(self) -> float:
        return 1e-6


@mutant("layer-epsilon-of-bert", rejects="TL-20", operation="decoder_layer", origin="BERT's 1e-12")
class EpsilonOfBert(HandWrittenLayer):
    """Adds 1e-12 to the variance."""

    def epsilon(self) -> float:
        return 1e-12


@mutant(
    "layer-epsilon-of-torch", rejects="TL-20", operation="encoder_layer", origin="nn.LayerNorm(embed_dim), as in detrex"
)
class EpsilonOfTorch(HandWrittenLayer):
    """Adds 1e-5 to the variance, whatever the configuration says."""

    def epsilon(self) -> float:
        return 1e-5


class WrittenOut(HandWrittenLayer):
    """The layer norm, step by step."""

    def norm(self, index: int, x: Tokens) -> Tokens:
        mean, variance = self.moments(x)
        return self.mapped(index, (x - mean) * self.factor(variance))

    def moments(self, x: Tokens) -> tuple[Tensor, Tensor]:
        mean = x.mean(-1, keepdim=True)
        return mean, (x - mean).square().mean(-1, keepdim=True)

    def factor(self, variance: Tensor) -> Tensor:
        return (variance + self.epsilon()).rsqrt()

    def mapped(self, index: int, x: Tokens) -> Tokens:
        weight, bias = self.weight_and_bias(index)
        return x * weight + bias


@mutant(
    "layer-variance-unbiased", rejects="TL-20", operation="encoder_layer", origin="torch.var, which divides by C - 1"
)
class VarianceUnbiased(WrittenOut):
    """Divides the squares by C - 1."""

    def moments(self, x: Tokens) -> tuple[Tensor, Tensor]:
        return x.mean(-1, keepdim=True), x.var(-1, keepdim=True)


@mutant("layer-root-mean-square", rejects="TL-20", operation="decoder_layer", origin="RMSNorm")
class RootMeanSquare(WrittenOut):
    """Does not subtract the mean."""

    def moments(self, x: Tokens) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(x[..., :1]), x.square().mean(-1, keepdim=True)


@mutant("layer-norm-over-tokens", rejects="TL-20", operation="decoder_layer", origin="LayerNorm over (length, channel)")
class NormOverTokens(WrittenOut):
    """Takes mean and variance over all tokens of an image."""

    def moments(self, x: Tokens) -> tuple[Tensor, Tensor]:
        mean = x.mean((-2, -1), keepdim=True)
        return mean, (x - mean).square().mean((-2, -1), keepdim=True)


@mutant("layer-epsilon-beside-root", rejects="TL-20", operation="encoder_layer", origin="(x - mean) / (std + eps)")
class EpsilonBesideRoot(WrittenOut):
    """Adds epsilon to the standard deviation."""

    def factor(self, variance: Tensor) -> Tensor:
        return 1 / (variance.sqrt() + self.epsilon())


@mutant(
    "layer-norm-without-bias",
    rejects="TL-20",
    operation="encoder_layer",
    origin="elementwise_affine taken for the weight alone",
)
class NormWithoutBias(WrittenOut):
    """Does not add the bias of a norm."""

    def mapped(self, index: int, x: Tokens) -> Tokens:
        return x * self.weight_and_bias(index)[0]


# -- feed-forward network -------------------------------------------------------------------------------------


@mutant(
    "layer-network-identity-twice",
    rejects="TL-21",
    operation="decoder_layer",
    origin="added in the network and in the layer",
)
class NetworkIdentityTwice(HandWrittenLayer):
    """Adds the stream to the feed-forward network twice."""

    def sublayer(self, name: str, index: int, at: Streams, call: Call) -> Streams:
        after = super().sublayer(name, index, at, call)
        return self.added(at, after.stream) if name == "ffn" else after


@mutant("layer-network-replaces-stream", rejects="TL-21", operation="encoder_layer", origin="x = norm(ffn(x))")
class NetworkReplacesStream(HandWrittenLayer):
    """Does not add the stream to the feed-forward network."""

    def sublayer(self, name: str, index: int, at: Streams, call: Call) -> Streams:
        after = super().sublayer(name, index, at, call)
        return Streams(after.stream - at.stream, after.stream - at.stream) if name == "ffn" else after


@mutant("layer-always-relu", rejects="TL-21", operation="encoder_layer", origin="activation accepted and not used")
class AlwaysRelu(HandWrittenLayer):
    """Has ReLU whatever the configuration says."""

    def activated(self, hidden: Tokens) -> Tokens:
        return hidden.relu()


@mutant("layer-gelu-tanh", rejects="TL-21", operation="decoder_layer", origin="F.gelu(x, approximate='tanh')")
class GeluTanh(HandWrittenLayer):
    """Approximates GELU by tanh."""

    def activated(self, hidden: Tokens) -> Tokens:
        return super().activated(hidden) if self.config.activation == "relu" else F.gelu(hidden, approximate="tanh")


@mutant(
    "layer-network-capped",
    rejects="TL-21",
    operation="decoder_layer",
    origin="feedforward_dim rounded down to a multiple of 8",
)
class NetworkCapped(HandWrittenLayer):
    """Leaves out the hidden channels beyond a multiple of 8."""

    def hidden_dropout(self, hidden: Tokens) -> Tokens:
        kept = max(8, hidden.shape[-1] // 8 * 8)
        return torch.cat((hidden[..., :kept], 0 * hidden[..., kept:]), -1)
