"""Mutants of transformer layers: order, norms before and after, numbers of the parameters (TL-1 to TL-8)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch.nn.functional as F

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.transformer.mutants.layers import Call, HandWrittenLayer, Streams, Tokens


@mutant(
    "layer-order-of-detr", rejects="TL-1", operation="decoder_layer", origin="forward_post of DETR, whatever the order"
)
class OrderOfDetr(HandWrittenLayer):
    """Attends to itself, then to the key, then runs the networks, whatever the order says."""

    def operations(self) -> Iterator[tuple[str, int]]:
        rank = {"self_attn": 0, "cross_attn": 1, "ffn": 2}
        named = list(super().operations())
        sublayers = sorted((each for each in named if each[0] != "norm"), key=lambda each: rank[each[0]])
        yield from (each if each[0] == "norm" else sublayers.pop(0) for each in named)


@mutant(
    "layer-attention-first",
    rejects="TL-1",
    operation="encoder_layer",
    origin="attention and network as two fixed halves",
)
class AttentionFirst(OrderOfDetr):
    """Runs all attentions before all networks."""


@mutant(
    "layer-each-operation-once",
    rejects="TL-1",
    operation="decoder_layer",
    origin="a branch for each of the three kinds",
)
class EachOperationOnce(HandWrittenLayer):
    """Runs only the first sublayer of each kind."""

    def operations(self) -> Iterator[tuple[str, int]]:
        met: set[str] = set()
        for name, index in super().operations():
            if name == "norm" or name not in met:
                yield name, index
            met.add(name)


@mutant(
    "layer-post-norm-as-pre-norm",
    rejects="TL-2",
    operation="decoder_layer",
    origin="identity kept from before the norm",
)
class PostNormAsPreNorm(HandWrittenLayer):
    """Adds to the stream from before the norm in a post-norm layer, and returns what the last norm made."""

    def normalised(self, index: int, at: Streams) -> Streams:
        return Streams(at.stream, self.norm(index, at.seen))

    def sublayer(self, name: str, index: int, at: Streams, call: Call) -> Streams:
        self.last = super().sublayer(name, index, at, call)
        return self.last

    def ended(self, stream: Tokens, call: Call) -> Tokens:
        last = len(self.norms) - 1
        return self.norm(last, stream) if self.order()[-1] == "norm" else stream


@mutant("layer-norm-before-addition", rejects="TL-2", operation="encoder_layer", origin="res-post-norm of Swin V2")
class NormBeforeAddition(HandWrittenLayer):
    """Normalises what a sublayer returns before it is added, in a post-norm layer."""

    def sublayer(self, name: str, index: int, at: Streams, call: Call) -> Streams:
        self.before = at.stream
        return super().sublayer(name, index, at, call)

    def normalised(self, index: int, at: Streams) -> Streams:
        if self.is_pre_norm():
            return super().normalised(index, at)
        stream = self.before + self.norm(index, at.stream - self.before)
        return Streams(stream, stream)


@mutant(
    "layer-pre-norm-as-post-norm", rejects="TL-3", operation="decoder_layer", origin="x = norm(x); x = x + sublayer(x)"
)
class PreNormAsPostNorm(HandWrittenLayer):
    """Adds to the normalised stream in a pre-norm layer too."""

    def is_pre_norm(self) -> bool:
        return False


@mutant(
    "layer-network-added-to-its-norm",
    rejects="TL-3",
    operation="encoder_layer",
    origin="transformers 5.23, models/rt_detr/modeling_rt_detr.py, RTDetrEncoderLayer: residual taken after the norm",
)
class NetworkAddedToItsNorm(HandWrittenLayer):
    """Adds the network of a pre-norm layer to the normalised stream; the attention is right."""

    def sublayer(self, name: str, index: int, at: Streams, call: Call) -> Streams:
        return super().sublayer(name, index, Streams(at.seen, at.seen) if name == "ffn" else at, call)


@mutant(
    "layer-stale-identity", rejects="TL-4", operation="decoder_layer", origin="detrex, layers/transformer.py:188-190"
)
class StaleIdentity(HandWrittenLayer):
    """Does not move the identity of a pre-norm layer on after a network, so that the next sublayer loses it."""

    def forward(self, query: Tokens, *rest: Tokens | None, **named: Tokens | None) -> Tokens:
        self.result = query
        return super().forward(query, *rest, **named)

    def sublayer(self, name: str, index: int, at: Streams, call: Call) -> Streams:
        after = super().sublayer(name, index, at, call)
        self.result = after.stream
        return Streams(at.stream, after.seen) if name == "ffn" and self.is_pre_norm() else after

    def ended(self, stream: Tokens, call: Call) -> Tokens:
        return self.result if self.is_pre_norm() else stream


@mutant(
    "layer-stale-identity-of-encoder",
    rejects="TL-4",
    operation="encoder_layer",
    origin="detrex, layers/transformer.py:188-190",
)
class StaleIdentityOfEncoder(StaleIdentity):
    """Does not move the identity of a pre-norm encoder layer on after a network."""


@mutant(
    "layer-last-entry-decides",
    rejects="TL-5",
    operation="decoder_layer",
    origin="pre_norm = operation_order[-1] != 'norm'",
)
class LastEntryDecides(HandWrittenLayer):
    """Takes a layer that does not end with a norm for pre-norm."""

    def is_pre_norm(self) -> bool:
        return self.order()[-1] != "norm"


@mutant(
    "layer-view-reused",
    rejects="TL-5",
    operation="encoder_layer",
    origin="one norm for two parallel sublayers, as in ViT-22B",
)
class ViewReused(HandWrittenLayer):
    """Shows a pre-norm sublayer without a norm of its own what the last norm made."""

    def normalised(self, index: int, at: Streams) -> Streams:
        self.view = super().normalised(index, at)
        return self.view

    def added(self, at: Streams, result: Tokens) -> Streams:
        after = super().added(at, result)
        return Streams(after.stream, self.view.seen) if self.is_pre_norm() else after


@mutant(
    "layer-norm-at-the-end",
    rejects="TL-6",
    operation="decoder_layer",
    origin="a post-norm layer always ends with a norm",
)
class NormAtTheEnd(HandWrittenLayer):
    """Normalises the output of a post-norm layer whose order does not end with a norm."""

    def ended(self, stream: Tokens, call: Call) -> Tokens:
        if self.is_pre_norm() or self.order()[-1] == "norm":
            return stream
        return F.layer_norm(stream, stream.shape[-1:])


@mutant(
    "layer-final-norm-inside",
    rejects="TL-6",
    operation="encoder_layer",
    origin="the stack's final norm moved into the layer",
)
class FinalNormInside(HandWrittenLayer):
    """Normalises the output of a pre-norm layer."""

    def ended(self, stream: Tokens, call: Call) -> Tokens:
        return F.layer_norm(stream, stream.shape[-1:]) if self.is_pre_norm() else stream


@mutant("layer-last-norm-skipped", rejects="TL-6", operation="encoder_layer", origin="norm left to the next layer")
class LastNormSkipped(HandWrittenLayer):
    """Leaves out the norm at the end of a post-norm layer with one norm."""

    def operations(self) -> Iterator[tuple[str, int]]:
        skip = len(self.norms) == 1 and not self.is_pre_norm()
        return (each for each in super().operations() if not (skip and each[0] == "norm"))


@mutant(
    "layer-norms-swapped",
    rejects="TL-7",
    operation="decoder_layer",
    origin="norm1 and norm2 of Deformable DETR's checkpoints",
)
class NormsSwapped(HandWrittenLayer):
    """Exchanges the first two norms."""

    def norm(self, index: int, x: Tokens) -> Tokens:
        swapped = {0: 1, 1: 0} if len(self.norms) > 1 else {}
        return super().norm(swapped.get(index, index), x)


@mutant("layer-one-norm-for-all", rejects="TL-7", operation="encoder_layer", origin="nn.ModuleList([norm] * n)")
class OneNormForAll(HandWrittenLayer):
    """Uses the first norm everywhere."""

    def norm(self, index: int, x: Tokens) -> Tokens:
        return super().norm(0, x)


@mutant("layer-one-network-for-all", rejects="TL-7", operation="encoder_layer", origin="nn.ModuleList([ffn] * n)")
class OneNetworkForAll(HandWrittenLayer):
    """Uses the first feed-forward network everywhere."""

    def network(self, index: int, seen: Tokens) -> Tokens:
        return super().network(0, seen)


@mutant(
    "layer-numbers-by-kind", rejects="TL-7", operation="decoder_layer", origin="self_attn loaded before multihead_attn"
)
class NumbersByKind(HandWrittenLayer):
    """Gives the first parameters to the self-attentions and the rest to the cross-attentions."""

    def operations(self) -> Iterator[tuple[str, int]]:
        numbers = {"self_attn": 0, "cross_attn": self.order().count("self_attn")}
        for name, index in super().operations():
            if name in numbers:
                index, numbers[name] = numbers[name], numbers[name] + 1
            yield name, index


@mutant(
    "layer-attends-to-its-input",
    rejects="TL-8",
    operation="encoder_layer",
    origin="temp_key = temp_value = query set once",
)
class AttendsToItsInput(HandWrittenLayer):
    """Keeps the layer's input as key and value of every self-attention."""

    def self_attention(self, index: int, at: Streams, call: Call) -> Tokens:
        query, key = self.placed(at.seen, call.query_pos), self.placed(call.query, call.query_pos)
        return self.attention(index, query, key, call.query, call.attn_mask, call.query_padding)


@mutant(
    "layer-value-before-norm", rejects="TL-8", operation="decoder_layer", origin="norm applied to query and key alone"
)
class ValueBeforeNorm(HandWrittenLayer):
    """Takes the value of a pre-norm self-attention from the stream before the norm."""

    def self_attention(self, index: int, at: Streams, call: Call) -> Tokens:
        placed = self.placed(at.seen, call.query_pos)
        return self.attention(index, placed, placed, at.stream, call.attn_mask, call.query_padding)


@mutant("layer-key-before-norm", rejects="TL-8", operation="encoder_layer", origin="norm applied to the query alone")
class KeyBeforeNorm(HandWrittenLayer):
    """Takes key and value of a pre-norm self-attention from the stream before the norm."""

    def self_attention(self, index: int, at: Streams, call: Call) -> Tokens:
        wider = replace(call, key=at.stream, key_pos=call.query_pos)
        wider.cross_attn_mask, wider.key_padding = call.attn_mask, call.query_padding
        return self.cross_attention(index, at, wider)
