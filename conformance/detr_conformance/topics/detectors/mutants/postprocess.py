"""Post-processing, one overridable step after another, and other right ways to write it.

Unchanged the steps are a twin; the mutants of PP-1 to PP-16 override one of them.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from detr_conformance.evidence.registry import twin

Logits = Float[Tensor, "batch query classes"]
Boxes = Float[Tensor, "batch query 4"]
Sizes = Int[Tensor, "batch 2"]
Chosen = tuple[Tensor, Tensor, Tensor]  # scores, labels and queries, each (batch, detection)


@twin("postprocess-by-hand", operation="postprocess", origin="argsort for topk, an index of the batch for gather")
class PostprocessByHand:
    """Sorts all scores and takes the first ones."""

    def __call__(
        self, pred_logits: Logits, pred_boxes: Boxes, sizes: Sizes, *, scores: str = "sigmoid", num_select: int = 300
    ) -> dict[str, Tensor]:
        self.check(pred_logits, sizes, scores)
        logits, boxes = self.wide(pred_logits), self.wide(pred_boxes)
        choose = self.each_query if scores == "softmax" else self.best_pairs
        score, label, query = choose(logits, num_select)
        image = torch.arange(len(boxes)).unsqueeze(1)
        return {
            "scores": score.to(pred_logits.dtype),
            "labels": self.labels(label),
            "boxes": self.on_the_image(boxes, sizes)[image, query].to(pred_boxes.dtype),
        }

    def check(self, logits: Logits, sizes: Sizes, scores: str) -> None:
        if len(sizes) != len(logits):
            raise ValueError(f"{len(sizes)} sizes for {len(logits)} images")
        if scores not in ("sigmoid", "softmax"):
            raise ValueError(f"unknown scores {scores!r}")

    def wide(self, tensor: Tensor) -> Tensor:
        return tensor if tensor.dtype == torch.float64 else tensor.float()

    def best_pairs(self, logits: Logits, num_select: int) -> Chosen:
        scores = self.probabilities(logits).flatten(1)
        index = self.best(scores, num_select)
        return scores.gather(1, index), *self.decoded(index, *logits.shape[1:])

    def probabilities(self, logits: Logits) -> Logits:
        return 1 / (1 + (-logits).exp())

    def best(self, scores: Float[Tensor, "batch pair"], num_select: int) -> Int[Tensor, "batch detection"]:
        return scores.argsort(dim=1, descending=True)[:, :num_select]

    def decoded(self, index: Tensor, queries: int, classes: int) -> tuple[Tensor, Tensor]:
        """Labels and queries."""
        query = torch.div(index, classes, rounding_mode="floor")
        return index - query * classes, query

    def each_query(self, logits: Logits, num_select: int) -> Chosen:
        scores = self.class_probabilities(logits)
        best = scores.argmax(-1, keepdim=True)
        query = torch.arange(logits.shape[1]).expand(logits.shape[:2])
        return scores.gather(-1, best)[..., 0], best[..., 0], query

    def class_probabilities(self, logits: Logits) -> Logits:
        return logits.log_softmax(-1)[..., :-1].exp()

    def labels(self, labels: Tensor) -> Tensor:
        return labels

    def on_the_image(self, boxes: Boxes, sizes: Sizes) -> Boxes:
        return self.corners(boxes) * self.scale(sizes).to(boxes.dtype)

    def corners(self, boxes: Boxes) -> Boxes:
        cx, cy, w, h = boxes.unbind(-1)
        return torch.stack((cx - 0.5 * w, cy - 0.5 * h, cx + 0.5 * w, cy + 0.5 * h), -1)

    def scale(self, sizes: Sizes) -> Int[Tensor, "batch 1 4"]:
        return sizes.flip(-1).repeat(1, 2).unsqueeze(1)


@twin("postprocess-image-by-image", operation="postprocess", origin="mmdet: predict_by_feat of one image after another")
class ImageByImage(PostprocessByHand):
    """Takes one image after the other, the last one first."""

    def __call__(
        self, pred_logits: Logits, pred_boxes: Boxes, sizes: Sizes, *, scores: str = "sigmoid", num_select: int = 300
    ) -> dict[str, Tensor]:
        self.check(pred_logits, sizes, scores)
        found = []
        for image in reversed(range(len(sizes))):
            one = slice(image, image + 1)
            given = (pred_logits[one], pred_boxes[one], sizes[one])
            found.append(super().__call__(*given, scores=scores, num_select=num_select))
        return {name: torch.cat([each[name] for each in reversed(found)]) for name in found[0]}


@twin("postprocess-pixels-first", operation="postprocess", origin="centres and sizes in pixels before corners")
class PixelsFirst(PostprocessByHand):
    """Scales centres and sizes, then makes corners of them."""

    def on_the_image(self, boxes: Boxes, sizes: Sizes) -> Boxes:
        return self.corners(boxes * self.scale(sizes).to(boxes.dtype))


@twin("postprocess-above-threshold", operation="postprocess", origin="the n-th score as a threshold")
class AboveThreshold(PostprocessByHand):
    """Finds the n-th best score, takes what is not below it, and sorts that."""

    def best(self, scores: Float[Tensor, "batch pair"], num_select: int) -> Int[Tensor, "batch detection"]:
        count = min(num_select, scores.shape[1])
        least = scores.kthvalue(scores.shape[1] - count + 1, dim=1, keepdim=True).values
        rows = []
        for row, limit in zip(scores, least, strict=True):
            above, equal = (~(row <= limit)).nonzero()[:, 0], (row == limit).nonzero()[:, 0]
            ordered = above[row[above].argsort(descending=True)]
            rows.append(torch.cat((ordered, equal))[:count])
        return torch.stack(rows)


@twin("postprocess-without-gradients", operation="postprocess", origin="facebookresearch/detr: @torch.no_grad()")
class WithoutGradients(PostprocessByHand):
    """Computes everything under no_grad, with topk and torch's own sigmoid and softmax."""

    @torch.no_grad()
    def __call__(
        self, pred_logits: Logits, pred_boxes: Boxes, sizes: Sizes, *, scores: str = "sigmoid", num_select: int = 300
    ) -> dict[str, Tensor]:
        return super().__call__(pred_logits, pred_boxes, sizes, scores=scores, num_select=num_select)

    def probabilities(self, logits: Logits) -> Logits:
        return logits.sigmoid()

    def best(self, scores: Float[Tensor, "batch pair"], num_select: int) -> Int[Tensor, "batch detection"]:
        return scores.topk(min(num_select, scores.shape[1]), dim=1).indices

    def class_probabilities(self, logits: Logits) -> Logits:
        return logits.softmax(-1)[..., :-1]
