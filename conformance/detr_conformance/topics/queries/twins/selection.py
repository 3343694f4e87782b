"""Right steps from memory to queries, each written in another way than the reference."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from detr_conformance.evidence.registry import twin
from detr_conformance.topics.queries.mutants.proposals_and_refinement import (
    Boxes,
    Indices,
    Mask,
    Memory,
    ProposalsByHand,
    RefinementByHand,
    SelectionByHand,
)
from detr_conformance.topics.queries.mutants.references import (
    Points,
    Ratios,
    ReferencesByHand,
    wide,
)


@twin("references-ratio-of-ratios", operation="encoder_reference_points", origin="the factor vr_m / vr_l formed first")
class RatioOfRatios(ReferencesByHand):
    """Multiplies centres on the own map by the quotient of the ratios."""

    def valid_size(self, ratio: Float[Tensor, "batch 2"], size: tuple[int, int]) -> Float[Tensor, "batch 2"]:
        return super().valid_size(torch.ones_like(ratio), size)

    def seen(self, points: Points, ratios: Ratios, sizes: list[tuple[int, int]]) -> Float[Tensor, "b s l 2"]:
        parts = points.split([height * width for height, width in sizes], 1)
        factors = ratios.unsqueeze(1) / ratios.unsqueeze(2)
        return torch.cat([part[:, :, None] * factors[:, level, None] for level, part in enumerate(parts)], 1)


@twin(
    "references-by-linspace", operation="encoder_reference_points", origin="Deformable-DETR: linspace(0.5, W - 0.5, W)"
)
class ByLinspace(ReferencesByHand):
    """Makes the centres by linspace, in float64."""

    def arithmetic(self, dtype: torch.dtype) -> torch.dtype:
        return torch.float64

    def places(self, length: int, dtype: torch.dtype) -> Float[Tensor, " length"]:
        return torch.linspace(0.5, length - 0.5, length, dtype=dtype)


@twin("proposals-by-difference-of-logs", operation="encoder_proposals", origin="log p - log(1 - p)")
class DifferenceOfLogs(ProposalsByHand):
    """Subtracts two logarithms, and fills twice, as the public code does."""

    def logits(self, boxes: Boxes) -> Boxes:
        return boxes.log() - torch.log1p(-boxes)

    def filled(self, logits: Boxes, invalid: Mask, padding: Mask) -> Boxes:
        return logits.masked_fill(padding[..., None], torch.inf).masked_fill(invalid[..., None], torch.inf)

    def zeroed(self, memory: Memory, invalid: Mask, padding: Mask) -> Memory:
        return memory.masked_fill(padding[..., None], 0).masked_fill(invalid[..., None], 0)


@twin("proposals-valid-cells-written", operation="encoder_proposals", origin="results only where there are any")
class ValidCellsWritten(ProposalsByHand):
    """Begins with infinities and zeros and writes what is valid."""

    def filled(self, logits: Boxes, invalid: Mask, padding: Mask) -> Boxes:
        proposals = torch.full_like(logits, torch.inf)
        proposals[~invalid] = logits[~invalid]
        return proposals

    def zeroed(self, memory: Memory, invalid: Mask, padding: Mask) -> Memory:
        written = torch.zeros_like(memory)
        written[~invalid] = memory[~invalid]
        return written


@twin("selection-by-topk", operation="select_queries", origin="Deformable-DETR: topk and gather")
class ByTopk(SelectionByHand):
    """Takes topk and gathers with repeated indices."""

    def best(self, scores: Float[Tensor, "batch cell"], num_queries: int) -> Indices:
        return torch.topk(scores, num_queries, dim=1)[1]

    def rows(self, tensor: Memory, indices: Indices, scores: Float[Tensor, "batch cell"]) -> Memory:
        return torch.gather(tensor, 1, indices.unsqueeze(-1).repeat(1, 1, tensor.shape[-1]))


@twin("selection-last-of-equals", operation="select_queries", origin="omdet_turbo in transformers: flat indices")
class LastOfEquals(SelectionByHand):
    """Ranks from the end, so that equal scores come in another order, and indexes the flattened batch."""

    def best(self, scores: Float[Tensor, "batch cell"], num_queries: int) -> Indices:
        return scores.shape[1] - 1 - super().best(scores.flip(1), num_queries)

    def rows(self, tensor: Memory, indices: Indices, scores: Float[Tensor, "batch cell"]) -> Memory:
        batch, cells = tensor.shape[:2]
        flat = (indices + cells * torch.arange(batch)[:, None]).flatten()
        return tensor.flatten(0, 1).index_select(0, flat).unflatten(0, indices.shape)


@twin("refinement-difference-of-logs", operation="refine_boxes", origin="log(x) - log(1 - x)")
class DifferenceOfLogits(RefinementByHand):
    """Subtracts two logarithms and computes the sigmoid by a hyperbolic tangent."""

    def logit(self, x: Tensor, eps: float) -> Tensor:
        x = self.inside(x)
        return x.clamp_min(eps).log() - (1 - x).clamp_min(eps).log()


@twin("refinement-in-float64", operation="refine_boxes", origin="double precision inside")
class RefinementInFloat64(RefinementByHand):
    """Computes in float64, with a threshold in place of a clamp."""

    def arithmetic(self, dtype: torch.dtype) -> torch.dtype:
        return torch.float64

    def logit(self, x: Tensor, eps: float) -> Tensor:
        x = self.inside(x)
        return torch.log(F.threshold(x, eps, eps) / F.threshold(1 - x, eps, eps))


@twin("refinement-slices", operation="refine_boxes", origin="Deformable-DETR: two slices joined")
class Slices(RefinementByHand):
    """Refines centres and sizes apart from each other."""

    def added(self, delta: Tensor, logit: Tensor) -> Tensor:
        centre = self.box(delta[..., :2] + logit[..., :2])
        size = delta[..., 2:] + logit[..., 2:] if logit.shape[-1] == 4 else delta[..., 2:]
        return torch.cat((centre, self.box(size)), -1)

    def arithmetic(self, dtype: torch.dtype) -> torch.dtype:
        return wide(dtype)
