"""Mutants of the module: padding, the value, what is changed in place (MSDM-7 to 11, MSDM-16, MSDM-20, MSDM-21)."""

from __future__ import annotations

from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.deformable_attention.mutants.module import (
    HandWrittenModule,
    Heads,
    Inputs,
    Logits,
    Offsets,
    Padding,
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
