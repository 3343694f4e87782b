"""Mutants of transformer layers: where padding and attention masks apply (TL-14 to TL-18)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.transformer.mutants.layers import Call, HandWrittenLayer, Mask, Padding, Streams, Tokens


def as_many(call: Call) -> bool:
    """Whether one mask could be taken for the other."""
    return call.key is not None and call.key.shape[1] == call.query.shape[1]


def either(a: Mask | Padding, b: Mask | Padding) -> Tensor | None:
    """What one of two boolean masks forbids."""
    return a | b if a is not None and b is not None else b if a is None else a


# -- padding --------------------------------------------------------------------------------------------------


@mutant(
    "layer-query-padding-ignored",
    rejects="TL-14",
    operation="encoder_layer",
    origin="query_key_padding_mask never passed on",
)
class QueryPaddingIgnored(HandWrittenLayer):
    """Attends to padded tokens of the stream."""

    def begun(self, call: Call) -> Call:
        return replace(call, query_padding=None)


@mutant(
    "layer-query-padding-in-cross",
    rejects="TL-14",
    operation="decoder_layer",
    origin="one mask argument for both attentions",
)
class QueryPaddingInCross(HandWrittenLayer):
    """Applies the padding of the stream in cross-attention too, where it fits."""

    def begun(self, call: Call) -> Call:
        self.fits = as_many(call)
        return call

    def cross_attention(self, index: int, at: Streams, call: Call) -> Tokens:
        padding = either(call.key_padding, call.query_padding) if self.fits else call.key_padding
        return super().cross_attention(index, at, replace(call, key_padding=padding))


@mutant(
    "layer-padding-by-zeroing",
    rejects="TL-14",
    operation="encoder_layer",
    origin="masked_fill of the value, as in deformable attention",
)
class PaddingByZeroing(HandWrittenLayer):
    """Attends to padded tokens as if they were zero, instead of not at all."""

    def attention(self, index: int, query: Tokens, key: Tokens, value: Tokens, mask: Mask, padding: Padding) -> Tokens:
        if padding is not None:
            key, value = (tokens.masked_fill(padding[..., None], 0) for tokens in (key, value))
        return super().attention(index, query, key, value, mask, None)


@mutant(
    "layer-padded-rows-zeroed",
    rejects="TL-15",
    operation="encoder_layer",
    origin="the nested tensors of torch's encoder",
)
class PaddedRowsZeroed(HandWrittenLayer):
    """Returns zeros for padded tokens."""

    def ended(self, stream: Tokens, call: Call) -> Tokens:
        return stream if call.query_padding is None else stream.masked_fill(call.query_padding[..., None], 0)


@mutant(
    "layer-padded-rows-untouched",
    rejects="TL-15",
    operation="decoder_layer",
    origin="sublayers run on packed valid tokens",
)
class PaddedRowsUntouched(HandWrittenLayer):
    """Returns padded tokens as they came."""

    def ended(self, stream: Tokens, call: Call) -> Tokens:
        if call.query_padding is None:
            return stream
        return torch.where(call.query_padding[..., None], call.query, stream)


@mutant(
    "layer-key-padding-ignored",
    rejects="TL-16",
    operation="decoder_layer",
    origin="detrex's DAB, DN and Conditional decoders",
)
class KeyPaddingIgnored(HandWrittenLayer):
    """Attends to padded keys."""

    def begun(self, call: Call) -> Call:
        return replace(call, key_padding=None)


@mutant(
    "layer-padding-masks-swapped",
    rejects="TL-16",
    operation="decoder_layer",
    origin="positional arguments in the wrong order",
)
class PaddingMasksSwapped(HandWrittenLayer):
    """Takes each padding mask for the other, where they fit."""

    def begun(self, call: Call) -> Call:
        if not as_many(call):
            return call
        return replace(call, query_padding=call.key_padding, key_padding=call.query_padding)


@mutant(
    "layer-key-padding-in-self",
    rejects="TL-16",
    operation="decoder_layer",
    origin="one mask argument for both attentions",
)
class KeyPaddingInSelf(HandWrittenLayer):
    """Applies the padding of the key in self-attention too, where it fits."""

    def begun(self, call: Call) -> Call:
        self.fits = as_many(call)
        return call

    def self_attention(self, index: int, at: Streams, call: Call) -> Tokens:
        padding = either(call.query_padding, call.key_padding) if self.fits else call.query_padding
        return super().self_attention(index, at, replace(call, query_padding=padding))


@mutant(
    "layer-key-padding-of-first-image", rejects="TL-16", operation="decoder_layer", origin="mask built from image 0"
)
class KeyPaddingOfFirstImage(HandWrittenLayer):
    """Applies the padding of the first image to all."""

    def begun(self, call: Call) -> Call:
        padding = call.key_padding
        return call if padding is None else replace(call, key_padding=padding[:1].expand_as(padding))


# -- masks ----------------------------------------------------------------------------------------------------


@mutant("layer-mask-ignored", rejects="TL-17", operation="decoder_layer", origin="tgt_mask never passed on")
class MaskIgnored(HandWrittenLayer):
    """Ignores attn_mask."""

    def begun(self, call: Call) -> Call:
        return replace(call, attn_mask=None)


@mutant(
    "layer-mask-in-first-attention",
    rejects="TL-17",
    operation="encoder_layer",
    origin="detrex's attn_masks, a list with one entry",
)
class MaskInFirstAttention(HandWrittenLayer):
    """Applies attn_mask in the first attention of the layer alone."""

    def self_attention(self, index: int, at: Streams, call: Call) -> Tokens:
        return super().self_attention(index, at, call if index == 0 else replace(call, attn_mask=None))


@mutant(
    "layer-mask-in-cross",
    rejects="TL-17",
    operation="decoder_layer",
    origin="detrex's default: one mask copied for each attention",
)
class MaskInCross(HandWrittenLayer):
    """Applies attn_mask in cross-attention too, where it fits."""

    def cross_attention(self, index: int, at: Streams, call: Call) -> Tokens:
        mask = either(call.cross_attn_mask, call.attn_mask) if as_many(call) else call.cross_attn_mask
        return super().cross_attention(index, at, replace(call, cross_attn_mask=mask))


@mutant("layer-cross-mask-ignored", rejects="TL-18", operation="decoder_layer", origin="memory_mask never passed on")
class CrossMaskIgnored(HandWrittenLayer):
    """Ignores cross_attn_mask."""

    def begun(self, call: Call) -> Call:
        return replace(call, cross_attn_mask=None)


@mutant(
    "layer-cross-mask-in-self",
    rejects="TL-18",
    operation="decoder_layer",
    origin="one mask for all attentions of the layer",
)
class CrossMaskInSelf(HandWrittenLayer):
    """Applies cross_attn_mask in self-attention too, where it fits."""

    def self_attention(self, index: int, at: Streams, call: Call) -> Tokens:
        mask = either(call.attn_mask, call.cross_attn_mask) if as_many(call) else call.attn_mask
        return super().self_attention(index, at, replace(call, attn_mask=mask))


@mutant(
    "layer-cross-mask-once", rejects="TL-18", operation="decoder_layer", origin="a list of masks that ends too early"
)
class CrossMaskOnce(HandWrittenLayer):
    """Applies cross_attn_mask in the first cross-attention alone."""

    def begun(self, call: Call) -> Call:
        self.mask = call.cross_attn_mask
        return call

    def cross_attention(self, index: int, at: Streams, call: Call) -> Tokens:
        mask, self.mask = self.mask, None
        return super().cross_attention(index, at, replace(call, cross_attn_mask=mask))
