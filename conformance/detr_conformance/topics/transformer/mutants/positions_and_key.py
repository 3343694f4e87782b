"""Mutants of transformer layers: what positions are added to, and what is done with the key (TL-9 to 13, TL-19)."""

from __future__ import annotations

from dataclasses import replace

import torch

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.transformer.mutants.layers import Call, HandWrittenLayer, Mask, Padding, Streams, Tokens

# -- positions ------------------------------------------------------------------------------------------------


@mutant(
    "layer-position-in-value", rejects="TL-9", operation="encoder_layer", origin="attention(x + pos, x + pos, x + pos)"
)
class PositionInValue(HandWrittenLayer):
    """Adds the position to the value of a self-attention as well."""

    def self_attention(self, index: int, at: Streams, call: Call) -> Tokens:
        placed = self.placed(at.seen, call.query_pos)
        return self.attention(index, placed, placed, placed, call.attn_mask, call.query_padding)


@mutant(
    "layer-position-on-query-only",
    rejects="TL-9",
    operation="decoder_layer",
    origin="key_pos not given in self-attention",
)
class PositionOnQueryOnly(HandWrittenLayer):
    """Adds the position to the query of a self-attention alone."""

    def self_attention(self, index: int, at: Streams, call: Call) -> Tokens:
        query = self.placed(at.seen, call.query_pos)
        return self.attention(index, query, at.seen, at.seen, call.attn_mask, call.query_padding)


@mutant(
    "layer-position-in-first-attention", rejects="TL-9", operation="encoder_layer", origin="query_pos consumed once"
)
class PositionInFirstAttention(HandWrittenLayer):
    """Adds positions in the first attention of the layer alone."""

    def self_attention(self, index: int, at: Streams, call: Call) -> Tokens:
        return super().self_attention(index, at, call if index == 0 else replace(call, query_pos=None))


@mutant("layer-no-key-position", rejects="TL-10", operation="decoder_layer", origin="key_pos accepted and not used")
class NoKeyPosition(HandWrittenLayer):
    """Ignores the positions of the keys."""

    def position_of_key(self, call: Call) -> Tokens | None:
        return None


@mutant("layer-key-position-in-value", rejects="TL-10", operation="decoder_layer", origin="memory = memory + pos, once")
class KeyPositionInValue(HandWrittenLayer):
    """Adds the position of the key to the value of a cross-attention as well."""

    def cross_attention(self, index: int, at: Streams, call: Call) -> Tokens:
        assert call.key is not None
        key = self.placed(call.key, self.position_of_key(call))
        return super().cross_attention(index, at, replace(call, key=key, key_pos=torch.zeros_like(key)))


@mutant(
    "layer-no-query-position-in-cross", rejects="TL-10", operation="decoder_layer", origin="the first DETR demo decoder"
)
class NoQueryPositionInCross(HandWrittenLayer):
    """Does not add the position to the query of a cross-attention."""

    def cross_attention(self, index: int, at: Streams, call: Call) -> Tokens:
        return super().cross_attention(index, at, replace(call, query_pos=None, key_pos=self.position_of_key(call)))


@mutant(
    "layer-position-in-stream",
    rejects="TL-11",
    operation="encoder_layer",
    origin="the input embedding of the original transformer",
)
class PositionInStream(HandWrittenLayer):
    """Adds the position to the stream once, at the beginning."""

    def begun(self, call: Call) -> Call:
        return replace(call, query=self.placed(call.query, call.query_pos), query_pos=None)


@mutant(
    "layer-position-in-identity",
    rejects="TL-11",
    operation="decoder_layer",
    origin="identity taken after positions were added",
)
class PositionInIdentity(HandWrittenLayer):
    """Adds what an attention returns to the stream with its position."""

    def sublayer(self, name: str, index: int, at: Streams, call: Call) -> Streams:
        after = super().sublayer(name, index, at, call)
        if name == "ffn":
            return after
        stream = self.placed(after.stream, call.query_pos)
        return Streams(stream, stream)


@mutant(
    "layer-position-for-network",
    rejects="TL-11",
    operation="encoder_layer",
    origin="positions added to every sublayer's input",
)
class PositionForNetwork(HandWrittenLayer):
    """Shows the feed-forward network tokens with their positions."""

    def sublayer(self, name: str, index: int, at: Streams, call: Call) -> Streams:
        seen = self.placed(at.seen, call.query_pos) if name == "ffn" else at.seen
        return super().sublayer(name, index, Streams(at.stream, seen), call)


@mutant(
    "layer-positions-only-together",
    rejects="TL-12",
    operation="decoder_layer",
    origin="both additions under one condition",
)
class PositionsOnlyTogether(HandWrittenLayer):
    """Adds the position of the keys only if the queries have one too."""

    def position_of_key(self, call: Call) -> Tokens | None:
        return None if call.query_pos is None else super().position_of_key(call)


@mutant(
    "layer-position-in-place-of-none",
    rejects="TL-12",
    operation="decoder_layer",
    origin="query_pos cut to the length of the key",
)
class PositionInPlaceOfNone(HandWrittenLayer):
    """Repeats the positions of the queries for keys that were given none."""

    def position_of_key(self, call: Call) -> Tokens | None:
        if call.key_pos is not None or call.query_pos is None or call.key is None:
            return call.key_pos
        keys, queries = call.key.shape[1], call.query_pos.shape[1]
        return call.query_pos.repeat(1, -(-keys // queries), 1)[:, :keys]


@mutant("layer-no-default-key-position", rejects="TL-13", operation="decoder_layer", origin="DETR and transformers")
class NoDefaultKeyPosition(HandWrittenLayer):
    """Adds nothing to keys that were given no position, however many they are."""

    def position_of_key(self, call: Call) -> Tokens | None:
        return call.key_pos


# -- the key --------------------------------------------------------------------------------------------------


@mutant(
    "layer-key-normalised", rejects="TL-19", operation="decoder_layer", origin="norm_kv of a pre-norm cross-attention"
)
class KeyNormalised(HandWrittenLayer):
    """Normalises the key of a pre-norm cross-attention like the query."""

    def normalised(self, index: int, at: Streams) -> Streams:
        self.last = index
        return super().normalised(index, at)

    def cross_attention(self, index: int, at: Streams, call: Call) -> Tokens:
        assert call.key is not None
        key = self.norm(self.last, call.key) if self.is_pre_norm() else call.key
        return super().cross_attention(index, at, replace(call, key=key))


@mutant(
    "layer-key-through-network",
    rejects="TL-19",
    operation="decoder_layer",
    origin="two-way attention, as in SAM's decoder",
)
class KeyThroughNetwork(HandWrittenLayer):
    """Adds the feed-forward network to the key as well, for the next cross-attention."""

    def sublayer(self, name: str, index: int, at: Streams, call: Call) -> Streams:
        if name == "ffn" and call.key is not None:
            call.key = call.key + self.network(index, call.key)
        return super().sublayer(name, index, at, call)


@mutant(
    "layer-value-normalised",
    rejects="TL-19",
    operation="decoder_layer",
    origin="a norm on the memory, but not on its key",
)
class ValueNormalised(HandWrittenLayer):
    """Normalises the value of every cross-attention."""

    def attention(self, index: int, query: Tokens, key: Tokens, value: Tokens, mask: Mask, padding: Padding) -> Tokens:
        if key.shape[1] != query.shape[1]:
            value = torch.nn.functional.layer_norm(value, value.shape[-1:])
        return super().attention(index, query, key, value, mask, padding)
