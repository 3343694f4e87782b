"""Proposals, their selection and box refinement, one overridable step after another.

They share no code with the reference. Unchanged they are twins; the mutants and other twins of chapter 11 override
one step.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from detr_conformance.evidence.registry import twin
from detr_conformance.topics.features.mutants.ratios import wide

Memory = Float[Tensor, "batch cell embed"]
Mask = Bool[Tensor, "batch cell"]
Boxes = Float[Tensor, "batch cell 4"]
Indices = Int[Tensor, "batch query"]


@twin("proposals-by-hand", operation="encoder_proposals", origin="Deformable-DETR, gen_encoder_output_proposals")
class ProposalsByHand:
    """Cuts the mask into levels and makes the boxes of one level after another."""

    def __call__(
        self, memory: Memory, memory_key_padding_mask: Mask, spatial_shapes: Int[Tensor, "level 2"]
    ) -> dict[str, Tensor]:
        sizes = [(height, width) for height, width in spatial_shapes.tolist()]
        self.check(memory, memory_key_padding_mask, sizes)
        dtype = self.arithmetic(memory.dtype)
        masks = memory_key_padding_mask.split([height * width for height, width in sizes], 1)
        levels = [
            self.level_boxes(mask.unflatten(1, size), level, dtype)
            for level, (mask, size) in enumerate(zip(masks, sizes, strict=True))
        ]
        boxes = self.in_order(torch.cat(levels, 1))
        invalid = memory_key_padding_mask | ~self.valid(boxes)
        proposals = self.filled(self.logits(boxes), invalid, memory_key_padding_mask).to(memory.dtype)
        return {"memory": self.zeroed(memory, invalid, memory_key_padding_mask), "proposals": proposals}

    def check(self, memory: Memory, mask: Mask, sizes: list[tuple[int, int]]) -> None:
        if mask.dtype is not torch.bool:
            raise TypeError(f"a mask of {mask.dtype}")
        if mask.shape != memory.shape[:2] or sum(height * width for height, width in sizes) != memory.shape[1]:
            raise ValueError(f"levels {sizes}, memory {tuple(memory.shape)}, mask {tuple(mask.shape)}")

    def arithmetic(self, dtype: torch.dtype) -> torch.dtype:
        return wide(dtype)

    def level_boxes(self, mask: Bool[Tensor, "batch height width"], level: int, dtype: torch.dtype) -> Boxes:
        rows, columns = self.extent(mask)
        y = (self.places(mask.shape[1], dtype) / rows[:, None])[:, :, None].expand(mask.shape)
        x = (self.places(mask.shape[2], dtype) / columns[:, None])[:, None].expand(mask.shape)
        side = torch.full_like(x, self.side(level))
        return torch.stack((x, y, side, side), -1).flatten(1, 2)

    def extent(self, mask: Bool[Tensor, "batch height width"]) -> tuple[Tensor, Tensor]:
        """Valid rows and columns of each image."""
        return (~mask[:, :, 0]).sum(1), (~mask[:, 0]).sum(1)

    def places(self, length: int, dtype: torch.dtype) -> Float[Tensor, " length"]:
        return torch.arange(length, dtype=dtype) + 0.5

    def side(self, level: int) -> float:
        return 0.05 * 2.0**level

    def in_order(self, boxes: Boxes) -> Boxes:
        return boxes

    def valid(self, boxes: Boxes) -> Mask:
        return ((boxes > 0.01) & (boxes < 0.99)).all(-1)

    def logits(self, boxes: Boxes) -> Boxes:
        return torch.log(boxes / (1 - boxes))

    def filled(self, logits: Boxes, invalid: Mask, padding: Mask) -> Boxes:
        return torch.where(invalid[..., None], torch.inf, logits)

    def zeroed(self, memory: Memory, invalid: Mask, padding: Mask) -> Memory:
        return torch.where(invalid[..., None], torch.zeros_like(memory), memory)


@twin("selection-by-hand", operation="select_queries", origin="a sort, where topk is slow")
class SelectionByHand:
    """Sorts all scores and takes rows by index, one image after another."""

    def __call__(
        self,
        class_logits: Float[Tensor, "batch cell classes"],
        proposals: Boxes,
        memory: Memory,
        *,
        num_queries: int,
        score: str = "max",
    ) -> dict[str, Tensor]:
        scores = self.scores(class_logits, score)
        self.check(scores, num_queries)
        indices = self.best(self.masked(scores, proposals), num_queries)
        return {
            "indices": self.returned(indices),
            "proposals": self.rows(proposals, indices, scores),
            "memory": self.rows(memory, indices, scores),
        }

    def scores(self, class_logits: Float[Tensor, "batch cell classes"], score: str) -> Float[Tensor, "batch cell"]:
        return self.largest(class_logits) if score == "max" else self.first(class_logits)

    def largest(self, class_logits: Float[Tensor, "batch cell classes"]) -> Float[Tensor, "batch cell"]:
        return class_logits.max(-1).values

    def first(self, class_logits: Float[Tensor, "batch cell classes"]) -> Float[Tensor, "batch cell"]:
        return class_logits[:, :, 0]

    def check(self, scores: Float[Tensor, "batch cell"], num_queries: int) -> None:
        if num_queries > scores.shape[1]:
            raise ValueError(f"{num_queries} queries from {scores.shape[1]} cells")

    def masked(self, scores: Float[Tensor, "batch cell"], proposals: Boxes) -> Float[Tensor, "batch cell"]:
        return scores

    def best(self, scores: Float[Tensor, "batch cell"], num_queries: int) -> Indices:
        return scores.argsort(dim=1, descending=True, stable=True)[:, :num_queries]

    def returned(self, indices: Indices) -> Indices:
        return indices

    def rows(self, tensor: Memory, indices: Indices, scores: Float[Tensor, "batch cell"]) -> Memory:
        return torch.stack([own[index] for own, index in zip(tensor, indices, strict=True)])


@twin("refinement-by-hand", operation="refine_boxes", origin="detrex, projects/dino: += on the first two")
class RefinementByHand:
    """Adds logits of zero to the last two numbers of a point's box."""

    def __call__(
        self, delta: Float[Tensor, "*query 4"], reference: Float[Tensor, "*query coordinate"], *, eps: float = 1e-3
    ) -> Float[Tensor, "*query 4"]:
        self.check(delta, reference)
        dtype = self.arithmetic(delta.dtype)
        logit = self.logit(self.given(reference).to(dtype), self.epsilon(eps))
        return self.added(delta.to(dtype), logit).to(delta.dtype)

    def check(self, delta: Tensor, reference: Tensor) -> None:
        if delta.shape[-1] != 4 or reference.shape[-1] not in (2, 4):
            raise ValueError(f"{delta.shape[-1]} corrections of {reference.shape[-1]} numbers")

    def arithmetic(self, dtype: torch.dtype) -> torch.dtype:
        return wide(dtype)

    def given(self, reference: Tensor) -> Tensor:
        return reference

    def epsilon(self, eps: float) -> float:
        return eps

    def logit(self, x: Tensor, eps: float) -> Tensor:
        x = self.inside(x)
        return torch.log(x.clamp_min(eps) / (1 - x).clamp_min(eps))

    def inside(self, x: Tensor) -> Tensor:
        return x.clamp(0, 1)

    def added(self, delta: Tensor, logit: Tensor) -> Tensor:
        return self.box(delta + torch.nn.functional.pad(logit, (0, 4 - logit.shape[-1])))

    def box(self, logit: Tensor) -> Tensor:
        return logit.sigmoid()
