"""Mutants of the boxes that the encoder proposes, and of their validity (SEL-6 and SEL-16 to SEL-23)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.queries.mutants.proposals_and_refinement import Boxes, Mask, Memory, ProposalsByHand


@mutant("proposals-any-dtype", rejects="SEL-6", operation="encoder_proposals", origin="masks as integers")
class AnyDtype(ProposalsByHand):
    """Takes masks of any dtype."""

    def __call__(self, memory: Memory, memory_key_padding_mask: Tensor, spatial_shapes: Tensor) -> dict[str, Tensor]:
        return super().__call__(memory, memory_key_padding_mask.bool(), spatial_shapes)


# -- boxes ----------------------------------------------------------------------------------------------------


@mutant("proposals-corners", rejects="SEL-16", operation="encoder_proposals", origin="linspace without 0.5")
class Corners(ProposalsByHand):
    """Proposes boxes around the upper left corner of each cell."""

    def places(self, length: int, dtype: torch.dtype) -> Float[Tensor, " length"]:
        return torch.arange(length, dtype=dtype)


@mutant("proposals-extent-axes", rejects="SEL-16", operation="encoder_proposals", origin="scale as (h, w)")
class ExtentAxes(ProposalsByHand):
    """Divides x by the valid rows and y by the valid columns."""

    def extent(self, mask: Bool[Tensor, "batch height width"]) -> tuple[Tensor, Tensor]:
        rows, columns = super().extent(mask)
        return columns, rows


@mutant("proposals-any-row", rejects="SEL-16", operation="encoder_proposals", origin="mask.all(1)")
class AnyRow(ProposalsByHand):
    """Counts rows and columns that have any valid cell."""

    def extent(self, mask: Bool[Tensor, "batch height width"]) -> tuple[Tensor, Tensor]:
        return (~mask.all(2)).sum(1), (~mask.all(1)).sum(1)


@mutant("proposals-y-before-x", rejects="SEL-17", operation="encoder_proposals", origin="cat of (grid_y, grid_x)")
class YBeforeX(ProposalsByHand):
    """Proposes (y, x, h, w)."""

    def in_order(self, boxes: Boxes) -> Boxes:
        return boxes[..., [1, 0, 3, 2]]


@mutant("proposals-size-first", rejects="SEL-17", operation="encoder_proposals", origin="cat of (wh, grid)")
class SizeFirst(ProposalsByHand):
    """Proposes (w, h, x, y)."""

    def in_order(self, boxes: Boxes) -> Boxes:
        return boxes.roll(2, -1)


@mutant("proposals-one-size", rejects="SEL-18", operation="encoder_proposals", origin="0.05 for all levels")
class OneSize(ProposalsByHand):
    """Proposes boxes of one size in all levels."""

    def side(self, level: int) -> float:
        return 0.05 * 2.0 ** (level if level > 4 else 0)


@mutant("proposals-sizes-grow-evenly", rejects="SEL-18", operation="encoder_proposals", origin="0.05 * (level + 1)")
class SizesGrowEvenly(ProposalsByHand):
    """Adds 0.05 with each level."""

    def side(self, level: int) -> float:
        return 0.05 * (level + 1) if level < 5 else super().side(level)


@mutant("proposals-boxes", rejects="SEL-19", operation="encoder_proposals", origin="lw_detr in transformers")
class AfterTheSigmoid(ProposalsByHand):
    """Returns the boxes themselves."""

    def logits(self, boxes: Boxes) -> Boxes:
        return boxes


@mutant("proposals-log-odds-half", rejects="SEL-19", operation="encoder_proposals", origin="atanh(2 p - 1)")
class InverseTanh(ProposalsByHand):
    """Returns half the logits."""

    def logits(self, boxes: Boxes) -> Boxes:
        return torch.atanh(2 * boxes - 1)


# -- validity -------------------------------------------------------------------------------------------------


@mutant("proposals-border-valid", rejects="SEL-20", operation="encoder_proposals", origin="validity left out")
class BorderValid(ProposalsByHand):
    """Takes every centre within the image."""

    def valid(self, boxes: Boxes) -> Mask:
        return ((boxes > 0) & (boxes < 1)).all(-1)


@mutant("proposals-bounds-included", rejects="SEL-20", operation="encoder_proposals", origin=">= and <=")
class BoundsIncluded(ProposalsByHand):
    """Takes centres at 0.01 and 0.99."""

    def valid(self, boxes: Boxes) -> Mask:
        return ((boxes >= 0.01) & (boxes <= 0.99)).all(-1)


@mutant("proposals-one-axis-suffices", rejects="SEL-20", operation="encoder_proposals", origin="any for all")
class OneAxisSuffices(ProposalsByHand):
    """Takes centres that are far enough from the border in one axis."""

    def valid(self, boxes: Boxes) -> Mask:
        inside = (boxes > 0.01) & (boxes < 0.99)
        return inside[..., :2].any(-1) & inside[..., 2:].all(-1)


@mutant("proposals-sizes-unchecked", rejects="SEL-21", operation="encoder_proposals", origin="validity of centres")
class SizesUnchecked(ProposalsByHand):
    """Checks centres alone, so that the logits of sizes above 1 are NaN."""

    def valid(self, boxes: Boxes) -> Mask:
        return super().valid(boxes[..., :2])


@mutant("proposals-sizes-clamped", rejects="SEL-21", operation="encoder_proposals", origin="sizes kept below 1")
class SizesClamped(ProposalsByHand):
    """Takes the sizes of the sixth and later levels for 0.95."""

    def side(self, level: int) -> float:
        return min(super().side(level), 0.95)


@mutant("proposals-minus-infinity", rejects="SEL-22", operation="encoder_proposals", origin="-inf, as in a softmax")
class MinusInfinity(ProposalsByHand):
    """Fills with -inf."""

    def filled(self, logits: Boxes, invalid: Mask, padding: Mask) -> Boxes:
        return logits.masked_fill(invalid[..., None], -torch.inf)


@mutant("proposals-large-number", rejects="SEL-22", operation="encoder_proposals", origin="finite, for the exporter")
class LargeNumber(ProposalsByHand):
    """Fills with 10000."""

    def filled(self, logits: Boxes, invalid: Mask, padding: Mask) -> Boxes:
        return logits.masked_fill(invalid[..., None], 1e4)


@mutant("proposals-padding-finite", rejects="SEL-22", operation="encoder_proposals", origin="only the second fill")
class PaddingFinite(ProposalsByHand):
    """Fills proposals that are invalid by their numbers, but not all of the padding."""

    def filled(self, logits: Boxes, invalid: Mask, padding: Mask) -> Boxes:
        finite = (logits.nan_to_num(nan=torch.inf, posinf=torch.inf).abs() < 4.5).all(-1)
        return logits.masked_fill((invalid & ~(padding & finite))[..., None], torch.inf)

    def level_boxes(self, mask: Bool[Tensor, "batch height width"], level: int, dtype: torch.dtype) -> Boxes:
        boxes = super().level_boxes(mask, level, dtype)
        return torch.where(mask.flatten(1)[..., None], boxes.clamp(max=0.97), boxes)


@mutant("proposals-relative-to-the-map", rejects="SEL-23", operation="encoder_proposals", origin="grid / (W, H)")
class RelativeToTheMap(ProposalsByHand):
    """Divides by the sides of the padded map."""

    def extent(self, mask: Bool[Tensor, "batch height width"]) -> tuple[Tensor, Tensor]:
        return super().extent(torch.zeros_like(mask))


@mutant("proposals-of-the-largest-image", rejects="SEL-23", operation="encoder_proposals", origin="one grid a batch")
class OfTheLargestImage(ProposalsByHand):
    """Divides by the largest extent of the batch."""

    def extent(self, mask: Bool[Tensor, "batch height width"]) -> tuple[Tensor, Tensor]:
        rows, columns = super().extent(mask)
        return rows.amax().expand_as(rows), columns.amax().expand_as(columns)
