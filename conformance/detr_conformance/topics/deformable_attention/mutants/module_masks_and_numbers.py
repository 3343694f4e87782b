"""Mutants of the module: masks, positions, identity, dropout, numbers (MSDM-7 to 18, MSDM-20, MSDM-21)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.deformable_attention.mutants.module import (
    HandWrittenModule,
    Heads,
    Inputs,
    Logits,
    Offsets,
    Padding,
    References,
    Tokens,
)


@mutant("masked-before-projection", rejects="MSDM-7", origin="value.masked_fill before value_proj")
class MaskedBeforeProjection(HandWrittenModule):
    """Masks first, so that padding holds the bias of the projection."""

    def maps(self, value: Tokens, mask: Padding | None) -> Heads:
        return super().maps(self.masked(value, mask), None)


@mutant("mask-inverted", rejects="MSDM-8", origin="transformers PR 20958: True is valid")
class MaskInverted(HandWrittenModule):
    """Takes True for valid."""

    def masked(self, projected: Tokens, mask: Padding | None) -> Tokens:
        return super().masked(projected, None if mask is None else ~mask)


@mutant("mask-ignored", rejects="MSDM-8", origin="argument accepted and not used")
class MaskIgnored(HandWrittenModule):
    """Does nothing with the mask."""

    def masked(self, projected: Tokens, mask: Padding | None) -> Tokens:
        return projected


@mutant("renormalised-over-padding", rejects="MSDM-9", origin="masked average pooling")
class RenormalisedOverPadding(HandWrittenModule):
    """Divides what was read by the share of weight that fell on valid cells."""

    def maps(self, value: Tokens, mask: Padding | None) -> Heads:
        self.mask = mask
        return super().maps(value, mask)

    def read(self, maps: Heads, shapes: Tensor, starts: Tensor, locations: Offsets, weights: Logits) -> Tokens:
        output = super().read(maps, shapes, starts, locations, weights)
        if self.mask is None:
            return output
        valid = (~self.mask)[..., None, None].expand_as(maps[..., :1]).to(maps.dtype)
        share = super().read(valid, shapes, starts, locations, weights)
        return (output.unflatten(-1, (self.samples[0], -1)) / share[..., None].clamp(min=1e-3)).flatten(2)


@mutant("mask-by-multiplication", rejects="MSDM-10", origin="value * valid[..., None]")
class MaskByMultiplication(HandWrittenModule):
    """Multiplies by zero, which keeps NaN."""

    def masked(self, projected: Tokens, mask: Padding | None) -> Tokens:
        return projected if mask is None else projected * (~mask)[..., None]


@mutant("heads-interleaved", rejects="MSDM-11", origin="view(..., channels, heads)")
class HeadsInterleaved(HandWrittenModule):
    """Gives channel c of the projected value to head c % M."""

    def split(self, projected: Tokens) -> Heads:
        return projected.unflatten(-1, (-1, self.samples[0])).transpose(2, 3)


@mutant("output-channels-interleaved", rejects="MSDM-11", origin="einops pattern 'b q (d m)'")
class OutputChannelsInterleaved(HandWrittenModule):
    """Hands the heads' outputs to the projection with the head as the fastest axis."""

    def result(self, read: Tokens, identity: Tokens) -> Tokens:
        return super().result(read.unflatten(-1, (self.samples[0], -1)).transpose(2, 3).flatten(2), identity)


@mutant("position-in-value", rejects="MSDM-12", origin="value = query after query += query_pos")
class PositionInValue(HandWrittenModule):
    """Adds the position to a value that came with the call, where the lengths allow it."""

    def inputs(self, query: Tokens, value: Tokens | None, identity: Tokens | None, query_pos: Tokens | None) -> Inputs:
        inputs = super().inputs(query, value, identity, query_pos)
        if query_pos is None or inputs.value.shape != query_pos.shape:
            return inputs
        return inputs._replace(value=inputs.value + query_pos)


@mutant("position-in-identity", rejects="MSDM-12", origin="residual taken from the positioned query")
class PositionInIdentity(HandWrittenModule):
    """Adds the position to the identity as well."""

    def inputs(self, query: Tokens, value: Tokens | None, identity: Tokens | None, query_pos: Tokens | None) -> Inputs:
        inputs = super().inputs(query, value, identity, query_pos)
        return inputs if query_pos is None else inputs._replace(identity=inputs.identity + query_pos)


@mutant("position-ignored", rejects="MSDM-12", origin="query_pos accepted for the interface only")
class PositionIgnored(HandWrittenModule):
    """Does not add the position to anything: nobody notices while the weights are zero."""

    def inputs(self, query: Tokens, value: Tokens | None, identity: Tokens | None, query_pos: Tokens | None) -> Inputs:
        return super().inputs(query, value, identity, None)


@mutant("position-in-offsets-only", rejects="MSDM-12", origin="position taken for a matter of where, not how much")
class PositionInOffsetsOnly(HandWrittenModule):
    """Computes the weights from the query without its position."""

    def inputs(self, query: Tokens, value: Tokens | None, identity: Tokens | None, query_pos: Tokens | None) -> Inputs:
        self.content = query
        return super().inputs(query, value, identity, query_pos)

    def logits(self, looking: Tokens) -> Logits:
        return super().logits(self.content)


@mutant("value-defaults-to-positioned-query", rejects="MSDM-13", origin="default taken after the addition")
class ValueDefaultsToPositionedQuery(HandWrittenModule):
    """Defaults the value to the query with its position."""

    def inputs(self, query: Tokens, value: Tokens | None, identity: Tokens | None, query_pos: Tokens | None) -> Inputs:
        inputs = super().inputs(query, value, identity, query_pos)
        return inputs._replace(value=inputs.looking) if value is None else inputs


@mutant("identity-defaults-to-positioned-query", rejects="MSDM-13", origin="default taken after the addition")
class IdentityDefaultsToPositionedQuery(HandWrittenModule):
    """Defaults the identity to the query with its position."""

    def inputs(self, query: Tokens, value: Tokens | None, identity: Tokens | None, query_pos: Tokens | None) -> Inputs:
        inputs = super().inputs(query, value, identity, query_pos)
        return inputs._replace(identity=inputs.looking) if identity is None else inputs


@mutant("identity-defaults-to-value", rejects="MSDM-13", origin="identity = value of self-attention")
class IdentityDefaultsToValue(HandWrittenModule):
    """Defaults the identity to the value where it has as many tokens."""

    def inputs(self, query: Tokens, value: Tokens | None, identity: Tokens | None, query_pos: Tokens | None) -> Inputs:
        inputs = super().inputs(query, value, identity, query_pos)
        if identity is not None or inputs.value.shape != query.shape:
            return inputs
        return inputs._replace(identity=inputs.value)


@mutant("no-identity", rejects="MSDM-14", origin="the addition left to the layer, as outside detrex")
class NoIdentity(HandWrittenModule):
    """Returns the projected output alone."""

    def result(self, read: Tokens, identity: Tokens) -> Tokens:
        return super().result(read, torch.zeros_like(identity))


@mutant("identity-before-projection", rejects="MSDM-14", origin="addition moved before output_proj")
class IdentityBeforeProjection(HandWrittenModule):
    """Adds the identity to what was read, and projects the sum."""

    def result(self, read: Tokens, identity: Tokens) -> Tokens:
        return super().result(read + identity, torch.zeros_like(identity))


@mutant("query-for-identity", rejects="MSDM-14", origin="identity argument accepted and not used")
class QueryForIdentity(HandWrittenModule):
    """Adds the query, whatever identity is given."""

    def inputs(self, query: Tokens, value: Tokens | None, identity: Tokens | None, query_pos: Tokens | None) -> Inputs:
        return super().inputs(query, value, None, query_pos)


@mutant("dropout-of-identity", rejects="MSDM-15", origin="dropout(identity + x)")
class DropoutOfIdentity(HandWrittenModule):
    """Drops channels of the sum."""

    def result(self, read: Tokens, identity: Tokens) -> Tokens:
        return F.dropout(identity + self.output_proj(read), self.config.dropout, self.training)


@mutant("dropout-in-evaluation", rejects="MSDM-15", origin="F.dropout(x, p), which is training by default")
class DropoutInEvaluation(HandWrittenModule):
    """Drops in evaluation too."""

    def result(self, read: Tokens, identity: Tokens) -> Tokens:
        return identity + F.dropout(self.output_proj(read), self.config.dropout)


@mutant("no-dropout", rejects="MSDM-15", origin="dropout left to the layer")
class NoDropout(HandWrittenModule):
    """Never drops anything."""

    def result(self, read: Tokens, identity: Tokens) -> Tokens:
        return identity + self.output_proj(read)


@mutant("dropout-of-weights", rejects="MSDM-15", origin="attention dropout of nn.MultiheadAttention")
class DropoutOfWeights(HandWrittenModule):
    """Drops attention weights instead of output channels."""

    def weights(self, logits: Logits) -> Logits:
        return F.dropout(super().weights(logits), self.config.dropout, self.training)

    def result(self, read: Tokens, identity: Tokens) -> Tokens:
        return identity + self.output_proj(read)


@mutant("looks-from-value", rejects="MSDM-16", origin="offsets predicted from the feature map, as in DAT")
class LooksFromValue(HandWrittenModule):
    """Adds the mean of the value to the query before deciding where to look."""

    def inputs(self, query: Tokens, value: Tokens | None, identity: Tokens | None, query_pos: Tokens | None) -> Inputs:
        inputs = super().inputs(query, value, identity, query_pos)
        return inputs._replace(looking=inputs.looking + inputs.value.mean(1, keepdim=True))


@mutant("rectified-value", rejects="MSDM-16", origin="activation after every linear layer")
class RectifiedValue(HandWrittenModule):
    """Puts a ReLU after the value projection."""

    def split(self, projected: Tokens) -> Heads:
        return super().split(projected.relu())


@mutant("projections-in-bfloat16", rejects="MSDM-17", origin="autocast left on around the module")
class ProjectionsInBfloat16(HandWrittenModule):
    """Rounds the projected value to bfloat16 in a float32 module."""

    def split(self, projected: Tokens) -> Heads:
        return super().split(projected.bfloat16().to(projected.dtype))


@mutant("fast-exponential", rejects="MSDM-17", origin="exp as (1 + x / 1024)^1024, a chain of squarings")
class FastExponential(HandWrittenModule):
    """Takes the softmax with an approximate exponential, normalised all the same."""

    def weights(self, logits: Logits) -> Logits:
        excess = logits - logits.amax((3, 4), keepdim=True)
        powers = (1 + excess / 1024).clamp(min=0) ** 1024
        return powers / powers.sum((3, 4), keepdim=True)


@mutant("offsets-detached", rejects="MSDM-18", origin="locations computed under no_grad")
class OffsetsDetached(HandWrittenModule):
    """Lets no gradient through the locations: offsets and references never learn."""

    def locations(self, reference: References, offsets: Offsets, spatial_shapes: Int[Tensor, "level 2"]) -> Tensor:
        return super().locations(reference, offsets, spatial_shapes).detach()


@mutant("references-detached", rejects="MSDM-18", origin="detach of the refinement moved into the module")
class ReferencesDetached(HandWrittenModule):
    """Detaches the reference points."""

    def locations(self, reference: References, offsets: Offsets, spatial_shapes: Int[Tensor, "level 2"]) -> Tensor:
        return super().locations(reference.detach(), offsets, spatial_shapes)


@mutant("slow-offsets", rejects="MSDM-18", origin="learning rate of the offsets, 0.1 of the others, put into the graph")
class SlowOffsets(HandWrittenModule):
    """Multiplies the gradient of the offsets by 0.1, which belongs to the optimiser."""

    def offsets(self, looking: Tokens) -> Offsets:
        offsets = super().offsets(looking)
        return offsets * 0.1 + (offsets * 0.9).detach()


@mutant("box-size-detached", rejects="MSDM-18", origin="only the centre is refined")
class BoxSizeDetached(HandWrittenModule):
    """Detaches width and height of 4-d reference points."""

    def within_box(self, centre: Tensor, size: Tensor, offsets: Offsets) -> Tensor:
        return super().within_box(centre, size.detach(), offsets)


@mutant("first-mask-for-all", rejects="MSDM-20", origin="mask expanded from a batch of one")
class FirstMaskForAll(HandWrittenModule):
    """Uses the first image's padding for the whole batch."""

    def masked(self, projected: Tokens, mask: Padding | None) -> Tokens:
        return super().masked(projected, None if mask is None else mask[:1].expand_as(mask))


@mutant("union-of-masks", rejects="MSDM-20", origin="any() over the wrong axis")
class UnionOfMasks(HandWrittenModule):
    """Masks a cell in all images if it is padding in one."""

    def masked(self, projected: Tokens, mask: Padding | None) -> Tokens:
        return super().masked(projected, None if mask is None else mask.any(0, keepdim=True).expand_as(mask))


@mutant("centred-over-batch", rejects="MSDM-20", origin="batch statistics, as in synchronised normalisation")
class CentredOverBatch(HandWrittenModule):
    """Moves the logits a sixteenth of the way to their mean over the batch."""

    def logits(self, looking: Tokens) -> Logits:
        logits = super().logits(looking)
        return logits + (logits.mean(0, keepdim=True) - logits) / 16


@mutant("position-added-in-place", rejects="MSDM-21", origin="query += query_pos")
class PositionAddedInPlace(HandWrittenModule):
    """Adds the position to the caller's query."""

    def inputs(self, query: Tokens, value: Tokens | None, identity: Tokens | None, query_pos: Tokens | None) -> Inputs:
        inputs = super().inputs(query.clone(), value, identity, query_pos)
        if query_pos is not None:
            query.data.add_(query_pos.data)
        return inputs


@mutant("value-masked-in-place", rejects="MSDM-21", origin="masked_fill_")
class ValueMaskedInPlace(HandWrittenModule):
    """Writes zeros into the padding of the caller's value."""

    def maps(self, value: Tokens, mask: Padding | None) -> Heads:
        maps = super().maps(value.clone(), mask)
        if mask is not None:
            value.data.masked_fill_(mask[..., None], 0)
        return maps


@mutant("bias-clamped-in-place", rejects="MSDM-21", origin="parameters constrained in forward")
class BiasClampedInPlace(HandWrittenModule):
    """Clamps a bias to [-0.5, 0.5] after each call, and so changes a parameter in evaluation."""

    def result(self, read: Tokens, identity: Tokens) -> Tokens:
        result = super().result(read, identity)
        self.output_proj.bias.data.clamp_(-0.5, 0.5)
        return result
