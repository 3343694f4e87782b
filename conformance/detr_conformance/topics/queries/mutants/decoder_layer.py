"""Mutants of the layers of DINO's decoder (DEC-1 to DEC-6)."""

from __future__ import annotations

from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor, nn

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.queries.mutants.decoder import At, Boxes, Call, HandWrittenDecoder, Tokens


@mutant(
    "decoder-norms-swapped",
    rejects="DEC-1",
    operation="dino_decoder",
    origin="norm1 and norm2 of DINO's checkpoints loaded as norms.0 and norms.1",
)
class NormsSwapped(HandWrittenDecoder):
    """Uses the norm after deformable attention behind self-attention, and the other way round."""

    def norm_of(self, at: At, number: int, x: Tokens) -> Tokens:
        return super().norm_of(at, (1, 0, 2)[number], x)


@mutant(
    "decoder-memory-first",
    rejects="DEC-1",
    operation="dino_decoder",
    origin="Mask2Former's layers, which attend to the image first",
)
class MemoryFirst(HandWrittenDecoder):
    """Attends to the memory before the queries attend to each other."""

    def layer(self, at: At, position: Tokens, call: Call) -> Tokens:
        x = self.norm_of(at, 1, at.stream + self.to_memory(at, at.stream, position, call))
        x = self.norm_of(at, 0, x + self.among_queries(at, x, position, call))
        return self.norm_of(at, 2, x + self.network(at, x, position, call))


@mutant("decoder-pre-norm", rejects="DEC-1", operation="dino_decoder", origin="normalize_before=True")
class PreNorm(HandWrittenDecoder):
    """Normalises what a sublayer sees, not the stream."""

    def layer(self, at: At, position: Tokens, call: Call) -> Tokens:
        x = at.stream
        for number, sublayer in enumerate((self.among_queries, self.to_memory, self.network)):
            x = x + sublayer(at, self.norm_of(at, number, x), position, call)
        return x


@mutant(
    "decoder-eps-of-layers",
    rejects="DEC-1",
    operation="dino_decoder",
    origin="nn.LayerNorm(eps=1e-6), as in timm's blocks",
)
class EpsOfLayers(HandWrittenDecoder):
    """Adds 1e-6 to the variance in the layers."""

    def norm_of(self, at: At, number: int, x: Tokens) -> Tokens:
        norm = self.parameters_of(at).norms[number]
        assert isinstance(norm, nn.LayerNorm)
        return F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, 1e-6)


@mutant(
    "decoder-position-on-value", rejects="DEC-2", operation="dino_decoder", origin="query = key = value = x + query_pos"
)
class PositionOnValue(HandWrittenDecoder):
    """Adds positions to the values of self-attention too."""

    def value(self, x: Tokens, position: Tokens) -> Tokens:
        return x + position


@mutant(
    "decoder-no-position-to-memory",
    rejects="DEC-2",
    operation="dino_decoder",
    origin="query_pos handed to self-attention alone",
)
class NoPositionToMemory(HandWrittenDecoder):
    """Offsets and weights of deformable attention come from the content."""

    def looking(self, x: Tokens, position: Tokens) -> Tokens:
        return x


@mutant("decoder-position-in-the-stream", rejects="DEC-2", operation="dino_decoder", origin="query = query + query_pos")
class PositionInTheStream(HandWrittenDecoder):
    """Adds the position to the stream, where it stays."""

    def to_memory(self, at: At, x: Tokens, position: Tokens, call: Call) -> Tokens:
        return super().to_memory(at, x, position, call) + position


@mutant(
    "decoder-mask-inverted",
    rejects="DEC-3",
    operation="dino_decoder",
    origin="scaled_dot_product_attention, whose True allows",
)
class MaskInverted(HandWrittenDecoder):
    """Takes True for may attend."""

    def mask(self, call: Call) -> Tensor | None:
        return None if call.attn_mask is None else ~call.attn_mask


@mutant("decoder-mask-transposed", rejects="DEC-3", operation="dino_decoder", origin="mask[key, query]")
class MaskTransposed(HandWrittenDecoder):
    """Takes rows for keys."""

    def mask(self, call: Call) -> Tensor | None:
        return None if call.attn_mask is None else call.attn_mask.T


@mutant(
    "decoder-mask-in-the-first-layer",
    rejects="DEC-3",
    operation="dino_decoder",
    origin="attn_masks of which later layers get the default",
)
class MaskInTheFirstLayer(HandWrittenDecoder):
    """Forgets the mask of the queries after the first layer."""

    def layer_call(self, index: int, call: Call) -> Call:
        return call if index == 0 else replace(call, attn_mask=None)


@mutant(
    "decoder-padding-not-passed",
    rejects="DEC-4",
    operation="dino_decoder",
    origin="detrex's DAB and DN decoders",
)
class PaddingNotPassed(HandWrittenDecoder):
    """Reads from padding."""

    def layer_call(self, index: int, call: Call) -> Call:
        return replace(call, padding=None)


@mutant(
    "decoder-padding-in-the-first-layer",
    rejects="DEC-4",
    operation="dino_decoder",
    origin="masked memory made once, and the bare one handed on",
)
class PaddingInTheFirstLayer(HandWrittenDecoder):
    """Reads from padding after the first layer."""

    def layer_call(self, index: int, call: Call) -> Call:
        return call if index == 0 else replace(call, padding=None)


@mutant("decoder-relu-always", rejects="DEC-5", operation="dino_decoder", origin="the setting not handed down")
class ReluAlways(HandWrittenDecoder):
    """Ignores the activation of the configuration."""

    def activation(self, x: Tokens) -> Tokens:
        return F.relu(x)


@mutant("decoder-network-not-dropped", rejects="DEC-6", operation="dino_decoder", origin="ffn_drop left at its default")
class NetworkNotDropped(HandWrittenDecoder):
    """Drops nothing in the network."""

    def dropped(self, x: Tokens) -> Tokens:
        return x


@mutant("decoder-deltas-dropped", rejects="DEC-6", operation="dino_decoder", origin="a dropout in every MLP")
class DeltasDropped(HandWrittenDecoder):
    """Drops what the box heads return."""

    def delta(self, head: int, tokens: Tokens) -> Boxes:
        return self.dropped(super().delta(head, tokens))
