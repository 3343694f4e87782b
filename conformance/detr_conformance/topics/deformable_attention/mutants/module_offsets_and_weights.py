"""Mutants of the module: where it looks, and how much that counts (MSDM-1 to MSDM-6, MSDM-24)."""

from __future__ import annotations

import math

from jaxtyping import Float, Int
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.deformable_attention.mutants.module import (
    HandWrittenModule,
    Logits,
    Offsets,
    References,
    Tokens,
)


@mutant("normaliser-height-first", rejects="MSDM-1", origin="Deformable-DETR issue 6, PR 7")
class NormaliserHeightFirst(HandWrittenModule):
    """Divides (x, y) by (H, W)."""

    def around_point(self, centre: Tensor, offsets: Offsets, spatial_shapes: Int[Tensor, "level 2"]) -> Tensor:
        return super().around_point(centre, offsets, spatial_shapes.flip(-1))


@mutant("normaliser-of-first-level", rejects="MSDM-1", origin="one normaliser for all levels")
class NormaliserOfFirstLevel(HandWrittenModule):
    """Divides by the size of the first level everywhere."""

    def around_point(self, centre: Tensor, offsets: Offsets, spatial_shapes: Int[Tensor, "level 2"]) -> Tensor:
        return super().around_point(centre, offsets, spatial_shapes[:1].expand_as(spatial_shapes))


@mutant("normaliser-minus-one", rejects="MSDM-1", origin="align_corners=True")
class NormaliserMinusOne(HandWrittenModule):
    """Divides by W - 1 and H - 1."""

    def around_point(self, centre: Tensor, offsets: Offsets, spatial_shapes: Int[Tensor, "level 2"]) -> Tensor:
        return super().around_point(centre, offsets, (spatial_shapes - 1).clamp(min=1))


@mutant("offsets-within-sixteen-cells", rejects="MSDM-24", origin="a clamp against offsets that run away")
class OffsetsWithinSixteenCells(HandWrittenModule):
    """Looks no further than 16 cells."""

    def around_point(self, centre: Tensor, offsets: Offsets, spatial_shapes: Int[Tensor, "level 2"]) -> Tensor:
        return super().around_point(centre, offsets.clamp(-16, 16), spatial_shapes)


@mutant("boxes-of-a-hundredth", rejects="MSDM-24", origin="clamp(min=...) on the sizes of boxes")
class BoxesOfAHundredth(HandWrittenModule):
    """Looks into boxes of at least a hundredth of the map."""

    def within_box(self, centre: Tensor, size: Tensor, offsets: Offsets) -> Tensor:
        return super().within_box(centre, size.clamp(min=0.01), offsets)


@mutant("box-offsets-not-per-point", rejects="MSDM-2", origin="/ num_points forgotten")
class BoxOffsetsNotPerPoint(HandWrittenModule):
    """Leaves out the division by P."""

    def within_box(self, centre: Tensor, size: Tensor, offsets: Offsets) -> Tensor:
        return centre + offsets * size * 0.5


@mutant("whole-box", rejects="MSDM-2", origin="* 0.5 forgotten")
class WholeBox(HandWrittenModule):
    """Takes the whole box where half of it belongs."""

    def within_box(self, centre: Tensor, size: Tensor, offsets: Offsets) -> Tensor:
        return super().within_box(centre, size * 2, offsets)


@mutant("box-height-first", rejects="MSDM-2", origin="(h, w) order of image sizes")
class BoxHeightFirst(HandWrittenModule):
    """Multiplies x with the height of the box and y with its width."""

    def within_box(self, centre: Tensor, size: Tensor, offsets: Offsets) -> Tensor:
        return super().within_box(centre, size.flip(-1), offsets)


@mutant("four-points-assumed", rejects="MSDM-2", origin="the published P written into the code")
class FourPointsAssumed(HandWrittenModule):
    """Divides by four points, whatever P."""

    def within_box(self, centre: Tensor, size: Tensor, offsets: Offsets) -> Tensor:
        return centre + offsets / 4 * size * 0.5


@mutant("box-corner-for-centre", rejects="MSDM-2", origin="boxes as (x0, y0, w, h)")
class BoxCornerForCentre(HandWrittenModule):
    """Takes the reference for the upper left corner of the box."""

    def within_box(self, centre: Tensor, size: Tensor, offsets: Offsets) -> Tensor:
        return super().within_box(centre + size / 2, size, offsets)


@mutant("offsets-in-two-blocks", rejects="MSDM-3", origin="deformable convolution's channel order")
class OffsetsInTwoBlocks(HandWrittenModule):
    """Takes all x offsets first and all y offsets after them."""

    def offsets(self, looking: Tokens) -> Offsets:
        return self.sampling_offsets(looking).unflatten(-1, (2, *self.samples)).movedim(2, -1)


@mutant("offsets-point-major", rejects="MSDM-3", origin="view(..., points, levels, 2)")
class OffsetsPointMajor(HandWrittenModule):
    """Reads the offsets as (head, point, level): the same shape if L = P."""

    def offsets(self, looking: Tokens) -> Offsets:
        heads, levels, points = self.samples
        return self.sampling_offsets(looking).unflatten(-1, (heads, points, levels, 2)).transpose(3, 4)


@mutant("offsets-head-last", rejects="MSDM-3", origin="view(..., levels, points, heads, 2)")
class OffsetsHeadLast(HandWrittenModule):
    """Reads the offsets with the head as the fastest axis but one."""

    def offsets(self, looking: Tokens) -> Offsets:
        heads, levels, points = self.samples
        return self.sampling_offsets(looking).unflatten(-1, (levels, points, heads, 2)).movedim(4, 2)


@mutant("offsets-y-first", rejects="MSDM-3", origin="DCN's (dy, dx)")
class OffsetsYFirst(HandWrittenModule):
    """Takes the first number of a pair for y, as deformable convolution does."""

    def offsets(self, looking: Tokens) -> Offsets:
        return super().offsets(looking).flip(-1)


@mutant("first-reference-for-all", rejects="MSDM-4", origin="reference points of one level")
class FirstReferenceForAll(HandWrittenModule):
    """Uses the reference point of the first level on all levels: right with equal valid ratios."""

    def per_level(self, reference: References) -> Float[Tensor, "batch query 1 level 1 coordinate"]:
        return super().per_level(reference[:, :, :1].expand_as(reference))


@mutant("references-on-head-axis", rejects="MSDM-4", origin="RT-DETR 505")
class ReferencesOnHeadAxis(HandWrittenModule):
    """Forgets an axis, so that the levels of the reference broadcast over the heads where there are as many."""

    def per_level(self, reference: References) -> Float[Tensor, "batch query 1 level 1 coordinate"]:
        heads, levels, _ = self.samples
        return reference[:, :, :, None, None] if heads == levels else super().per_level(reference)


@mutant("softmax-over-points", rejects="MSDM-5", origin="softmax(-1) before the view")
class SoftmaxOverPoints(HandWrittenModule):
    """Normalises each level by itself."""

    def weights(self, logits: Logits) -> Logits:
        return logits.softmax(-1)


@mutant("softmax-over-points-averaged", rejects="MSDM-5", origin="levels averaged afterwards")
class SoftmaxOverPointsAveraged(HandWrittenModule):
    """Normalises each level by itself and divides by L: right for equal logits."""

    def weights(self, logits: Logits) -> Logits:
        return logits.softmax(-1) / logits.shape[3]


@mutant("softmax-over-heads", rejects="MSDM-5", origin="wrong dim after a transpose")
class SoftmaxOverHeads(HandWrittenModule):
    """Lets the heads compete for each sample, scaled to the right sum for equal logits."""

    def weights(self, logits: Logits) -> Logits:
        heads, levels, points = self.samples
        return logits.softmax(2) * heads / (levels * points)


@mutant("softmax-without-maximum", rejects="MSDM-5", origin="exp(x) / sum(exp(x)), fused by hand")
class SoftmaxWithoutMaximum(HandWrittenModule):
    """Does not subtract the largest logit first: overflows from 89 on in float32."""

    def weights(self, logits: Logits) -> Logits:
        powers = logits.exp()
        return powers / powers.sum((-2, -1), keepdim=True)


@mutant("sigmoid-weights", rejects="MSDM-5", origin="modulation of deformable convolution v2")
class SigmoidWeights(HandWrittenModule):
    """Uses a sigmoid, as modulated deformable convolution, divided by half the number of samples."""

    def weights(self, logits: Logits) -> Logits:
        return logits.sigmoid() * 2 / (logits.shape[3] * logits.shape[4])


@mutant("tempered-softmax", rejects="MSDM-5", origin="1 / sqrt(d) of dot-product attention")
class TemperedSoftmax(HandWrittenModule):
    """Scales the logits by 1 / sqrt(C / M), though no dot product was taken."""

    def weights(self, logits: Logits) -> Logits:
        return super().weights(logits / math.sqrt(self.config.embed_dim / self.config.num_heads))


@mutant("weights-point-major", rejects="MSDM-6", origin="view(..., points, levels)")
class WeightsPointMajor(HandWrittenModule):
    """Reads the logits as (head, point, level)."""

    def logits(self, looking: Tokens) -> Logits:
        heads, levels, points = self.samples
        return self.attention_weights(looking).unflatten(-1, (heads, points, levels)).transpose(3, 4)


@mutant("weights-head-last", rejects="MSDM-6", origin="view(..., levels, points, heads)")
class WeightsHeadLast(HandWrittenModule):
    """Reads the logits with the head as the fastest axis."""

    def logits(self, looking: Tokens) -> Logits:
        heads, levels, points = self.samples
        return self.attention_weights(looking).unflatten(-1, (levels, points, heads)).movedim(4, 2)
