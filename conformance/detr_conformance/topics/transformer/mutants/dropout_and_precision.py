"""Mutants of transformer layers: dropout, precision, gradients (TL-22 to TL-24)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.transformer.mutants.layers import Call, HandWrittenLayer, Mask, Padding, Streams, Tokens

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
    "layer-images-dropped-whole",
    rejects="TL-22",
    operation="encoder_layer",
    origin="stochastic depth of vision transformers in the place of dropout",
)
class ImagesDroppedWhole(HandWrittenLayer):
    """Drops what an attention adds for all tokens of an image, or for none."""

    def output_dropout(self, attended: Tokens) -> Tokens:
        kept = F.dropout(
            attended.new_ones(attended.shape[0], 1, attended.shape[2]), self.config.proj_drop, self.training
        )
        return attended * kept


@mutant(
    "layer-tokens-dropped-whole",
    rejects="TL-22",
    operation="decoder_layer",
    origin="nn.Dropout1d, which drops channels as a whole",
)
class TokensDroppedWhole(HandWrittenLayer):
    """Drops all channels of a token, or none."""

    def output_dropout(self, attended: Tokens) -> Tokens:
        return (
            attended
            * F.dropout(attended.new_ones(attended.shape[:-1]), self.config.proj_drop, self.training)[..., None]
        )


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
