"""Mutants of the memory of proposals, of their precision and errors (SEL-24 to SEL-29)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.queries.mutants.proposals_and_refinement import Boxes, Mask, Memory, ProposalsByHand


@mutant("proposals-memory-of-borders", rejects="SEL-24", operation="encoder_proposals", origin="only the first fill")
class MemoryOfBorders(ProposalsByHand):
    """Leaves the memory of invalid cells that are no padding."""

    def zeroed(self, memory: Memory, invalid: Mask, padding: Mask) -> Memory:
        return super().zeroed(memory, padding, padding)


@mutant(
    "proposals-memory-as-it-is", rejects="SEL-24", operation="encoder_proposals", origin="masking left to the model"
)
class MemoryAsItIs(ProposalsByHand):
    """Zeroes nothing."""

    def zeroed(self, memory: Memory, invalid: Mask, padding: Mask) -> Memory:
        return memory.clone()


@mutant("proposals-memory-multiplied", rejects="SEL-25", operation="encoder_proposals", origin="memory * valid")
class MemoryMultiplied(ProposalsByHand):
    """Multiplies by zero."""

    def zeroed(self, memory: Memory, invalid: Mask, padding: Mask) -> Memory:
        return memory * (~invalid[..., None]).to(memory.dtype)


@mutant("proposals-whole-padding-refused", rejects="SEL-26", operation="encoder_proposals", origin="as in valid_ratios")
class WholePaddingRefused(ProposalsByHand):
    """Refuses levels without a valid cell."""

    def extent(self, mask: Bool[Tensor, "batch height width"]) -> tuple[Tensor, Tensor]:
        rows, columns = super().extent(mask)
        if not (rows * columns).all():
            raise ValueError("a level without a valid cell")
        return rows, columns


@mutant("proposals-whole-padding-nan", rejects="SEL-26", operation="encoder_proposals", origin="0 / 0 not foreseen")
class WholePaddingNaN(ProposalsByHand):
    """Fills by adding infinity, which leaves NaN where a size was divided by zero."""

    def filled(self, logits: Boxes, invalid: Mask, padding: Mask) -> Boxes:
        broken = (logits.isnan() & padding[..., None])[..., :2].all(-1) & (padding.all(1))[:, None]
        return super().filled(logits, invalid, padding).masked_fill(broken[..., None], torch.nan)


class StraightThrough(torch.autograd.Function):
    """Zeroes forward, and passes every gradient on."""

    @staticmethod
    def forward(ctx: object, memory: Tensor, invalid: Tensor) -> Tensor:
        return memory.masked_fill(invalid, 0)

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


@mutant("proposals-straight-through", rejects="SEL-27", operation="encoder_proposals", origin="memory.data[mask] = 0")
class GradientEverywhere(ProposalsByHand):
    """Hands the gradient of zeroed cells on as well."""

    def zeroed(self, memory: Memory, invalid: Mask, padding: Mask) -> Memory:
        return StraightThrough.apply(memory, invalid[..., None].expand_as(memory))


@mutant(
    "proposals-gradient-multiplied", rejects="SEL-27", operation="encoder_proposals", origin="nan_to_num, then * mask"
)
class GradientMultiplied(ProposalsByHand):
    """Replaces NaN first and multiplies then, so that the backward pass multiplies NaN by zero."""

    def zeroed(self, memory: Memory, invalid: Mask, padding: Mask) -> Memory:
        finite = torch.where(invalid[..., None], memory.nan_to_num(0, 0, 0), memory)
        return finite * (~invalid[..., None]).to(memory.dtype)


# -- numbers and errors ---------------------------------------------------------------------------------------


@mutant(
    "proposals-in-half",
    rejects="SEL-28",
    operation="encoder_proposals",
    origin="transformers, gen_encoder_output_proposals: linspace in the dtype of the memory",
)
class InHalf(ProposalsByHand):
    """Computes in the dtype of the memory."""

    def arithmetic(self, dtype: torch.dtype) -> torch.dtype:
        return dtype


@mutant("proposals-logit-in-half", rejects="SEL-28", operation="encoder_proposals", origin="boxes rounded before log")
class LogitInHalf(ProposalsByHand):
    """Rounds the boxes to the dtype of the memory before the logit."""

    def __call__(self, memory: Memory, memory_key_padding_mask: Mask, spatial_shapes: Tensor) -> dict[str, Tensor]:
        self.dtype = memory.dtype
        return super().__call__(memory, memory_key_padding_mask, spatial_shapes)

    def logits(self, boxes: Boxes) -> Boxes:
        return super().logits(boxes.to(self.dtype).to(boxes.dtype))


@mutant("proposals-left-over", rejects="SEL-29", operation="encoder_proposals", origin="cells cut by running indices")
class LeftOver(ProposalsByHand):
    """Leaves out the cells that no level has, and levels that no cell is left for."""

    def __call__(
        self, memory: Memory, memory_key_padding_mask: Mask, spatial_shapes: Int[Tensor, "level 2"]
    ) -> dict[str, Tensor]:
        ends = spatial_shapes.prod(-1).cumsum(0)
        kept = spatial_shapes[ends <= memory.shape[1]]
        cells = int(kept.prod(-1).sum())
        return super().__call__(memory[:, :cells], memory_key_padding_mask[:, :cells], kept)


@mutant(
    "proposals-memory-made-finite", rejects="SEL-24", operation="encoder_proposals", origin="nan_to_num, to be safe"
)
class MemoryMadeFinite(ProposalsByHand):
    """Makes numbers of NaN and infinities, where they would show that training diverges."""

    def zeroed(self, memory: Memory, invalid: Mask, padding: Mask) -> Memory:
        return super().zeroed(memory.nan_to_num(), invalid, padding)


@mutant("proposals-memory-handed-on", rejects="BLK-5", operation="encoder_proposals", origin="if invalid.any(): fill")
class MemoryHandedOn(ProposalsByHand):
    """Returns its argument where nothing is to be zeroed."""

    def zeroed(self, memory: Memory, invalid: Mask, padding: Mask) -> Memory:
        return super().zeroed(memory, invalid, padding) if invalid.any() else memory
