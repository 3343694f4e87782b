"""Mutants of transformer layers: norm, feed-forward network, dropout, numbers (TL-20 to TL-24)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.transformer.mutants.layers import (
    Call,
    HandWrittenLayer,
    Mask,
    Padding,
    Streams,
    Tokens,
)

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


# -- dropout --------------------------------------------------------------------------------------------------


@mutant(
    "layer-one-rate-of-dropout", rejects="TL-22", operation="encoder_layer", origin="config.dropout of transformers"
)
class OneRateOfDropout(HandWrittenLayer):
    """Drops what attentions return with the rate of the feed-forward networks."""

    def output_dropout(self, attended: Tokens) -> Tokens:
        return F.dropout(attended, self.config.ffn_drop, self.training)


@mutant("layer-stream-dropped", rejects="TL-22", operation="decoder_layer", origin="dropout(x + attention(x))")
class StreamDropped(HandWrittenLayer):
    """Drops channels of the stream after an attention."""

    def output_dropout(self, attended: Tokens) -> Tokens:
        return attended

    def sublayer(self, name: str, index: int, at: Streams, call: Call) -> Streams:
        after = super().sublayer(name, index, at, call)
        if name == "ffn":
            return after
        stream = F.dropout(after.stream, self.config.proj_drop, self.training)
        return Streams(stream, stream)


@mutant(
    "layer-weights-never-dropped", rejects="TL-22", operation="decoder_layer", origin="attn_drop not handed to SDPA"
)
class WeightsNeverDropped(HandWrittenLayer):
    """Ignores attn_drop."""

    def weight_dropout(self, shares: Tensor) -> Tensor:
        return shares


@mutant(
    "layer-hidden-never-dropped",
    rejects="TL-22",
    operation="encoder_layer",
    origin="activation_dropout=0 of transformers",
)
class HiddenNeverDropped(HandWrittenLayer):
    """Drops the output of a feed-forward network, but not its hidden channels."""

    def hidden_dropout(self, hidden: Tokens) -> Tokens:
        return hidden


@mutant(
    "layer-cross-never-dropped",
    rejects="TL-22",
    operation="decoder_layer",
    origin="dropout1 of DETR's layer, but no dropout2",
)
class CrossNeverDropped(HandWrittenLayer):
    """Drops the output of the first attention alone."""

    def attention(self, index: int, query: Tokens, key: Tokens, value: Tokens, mask: Mask, padding: Padding) -> Tokens:
        self.index = index
        return super().attention(index, query, key, value, mask, padding)

    def output_dropout(self, attended: Tokens) -> Tokens:
        return super().output_dropout(attended) if self.index == 0 else attended


@mutant(
    "layer-dropped-after-norm",
    rejects="TL-22",
    operation="encoder_layer",
    origin="embedding dropout, as in the original transformer",
)
class DroppedAfterNorm(HandWrittenLayer):
    """Drops channels of the layer's input too."""

    def ended(self, stream: Tokens, call: Call) -> Tokens:
        return F.dropout(stream, self.config.ffn_drop / 4, self.training)


# -- numbers --------------------------------------------------------------------------------------------------


@mutant(
    "layer-stream-in-bfloat16", rejects="TL-23", operation="encoder_layer", origin="residual stream kept in bfloat16"
)
class StreamInBfloat16(HandWrittenLayer):
    """Rounds the stream to bfloat16 after each sublayer."""

    def added(self, at: Streams, result: Tokens) -> Streams:
        after = super().added(at, result)
        stream = after.stream.bfloat16().to(after.stream.dtype)
        return Streams(stream, stream)


@mutant("layer-in-float32", rejects="TL-23", operation="decoder_layer", origin="tokens.float() at the head of forward")
class InFloat32(HandWrittenLayer):
    """Rounds the stream of a float64 layer to float32."""

    def begun(self, call: Call) -> Call:
        call.query = call.query.to(torch.promote_types(torch.float32, call.query.dtype)).float().to(call.query.dtype)
        return call

    def added(self, at: Streams, result: Tokens) -> Streams:
        after = super().added(at, result)
        stream = after.stream.float().to(after.stream.dtype)
        return Streams(stream, stream)


@mutant(
    "layer-key-detached", rejects="TL-24", operation="decoder_layer", origin="memory.detach() for auxiliary decoders"
)
class KeyDetached(HandWrittenLayer):
    """Sends no gradient to the key."""

    def begun(self, call: Call) -> Call:
        assert call.key is not None
        call.key = call.key.detach() + 0 * call.key
        return call


@mutant("layer-identity-detached", rejects="TL-24", operation="encoder_layer", origin="identity = query.detach()")
class IdentityDetached(HandWrittenLayer):
    """Sends no gradient through the identity of the first sublayer."""

    def operations(self) -> Iterator[tuple[str, int]]:
        self.first = True
        return super().operations()

    def added(self, at: Streams, result: Tokens) -> Streams:
        stream = at.stream.detach() if self.first else at.stream
        self.first = False
        return super().added(Streams(stream, at.seen), result)
