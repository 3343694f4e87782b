"""Mutants of post-processing: one detection a query, boxes, labels, accuracy and errors (PP-7 to PP-16)."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.detectors.mutants.postprocess import Boxes, Chosen, Logits, PostprocessByHand, Sizes


@mutant("pp-softmax-sorted", rejects="PP-7", operation="postprocess", origin="topk in both branches")
class SoftmaxSorted(PostprocessByHand):
    """Sorts the detections of softmax scores as well."""

    def each_query(self, logits: Logits, num_select: int) -> Chosen:
        score, label, query = super().each_query(logits, num_select)
        order = score.argsort(dim=1, descending=True)
        return score.gather(1, order), label.gather(1, order), query.gather(1, order)


@mutant("pp-no-object-filtered", rejects="PP-7", operation="postprocess", origin="keep = labels != no_object")
class NoObjectFiltered(PostprocessByHand):
    """Gives queries of no object a score of 0, as if they were gone."""

    def each_query(self, logits: Logits, num_select: int) -> Chosen:
        score, label, query = super().each_query(logits, num_select)
        return score * (logits.argmax(-1) < logits.shape[-1] - 1), label, query


@mutant("pp-no-object-kept", rejects="PP-8", operation="postprocess", origin="[..., :-1] forgotten")
class NoObjectKept(PostprocessByHand):
    """Returns no object as a class."""

    def class_probabilities(self, logits: Logits) -> Logits:
        return logits.softmax(-1)


@mutant("pp-no-object-dropped-before", rejects="PP-8", operation="postprocess", origin="logits[..., :-1].softmax(-1)")
class NoObjectDroppedBefore(PostprocessByHand):
    """Leaves no object out of the softmax, so that background has sure detections."""

    def class_probabilities(self, logits: Logits) -> Logits:
        return logits[..., :-1].softmax(-1)


@mutant(
    "pp-no-object-first", rejects="PP-8", operation="postprocess", origin="class 0 as background, as in Faster R-CNN"
)
class NoObjectFirst(PostprocessByHand):
    """Takes the first class for no object."""

    def class_probabilities(self, logits: Logits) -> Logits:
        return logits.softmax(-1)[..., 1:]


@mutant(
    "pp-softmax-over-the-batch",
    rejects="PP-8",
    operation="postprocess",
    origin="rt_detr of transformers: softmax without an axis",
)
class SoftmaxOverTheBatch(PostprocessByHand):
    """Normalises over the images: torch takes the first of three axes where none is given."""

    def class_probabilities(self, logits: Logits) -> Logits:
        return logits.softmax(0)[..., :-1]


@mutant("pp-centres-returned", rejects="PP-9", operation="postprocess", origin="conversion forgotten")
class CentresReturned(PostprocessByHand):
    """Returns centres and sizes."""

    def corners(self, boxes: Boxes) -> Boxes:
        return boxes


@mutant("pp-corner-and-size", rejects="PP-9", operation="postprocess", origin="COCO's results format, too early")
class CornerAndSize(PostprocessByHand):
    """Returns the upper left corner, width and height."""

    def corners(self, boxes: Boxes) -> Boxes:
        return torch.cat((boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., 2:]), -1)


@mutant("pp-height-first", rejects="PP-10", operation="postprocess", origin="(h, w, h, w)")
class HeightFirst(PostprocessByHand):
    """Scales x by the height."""

    def scale(self, sizes: Sizes) -> Int[Tensor, "batch 1 4"]:
        return sizes.repeat(1, 2).unsqueeze(1)


@mutant("pp-padded-size", rejects="PP-10", operation="postprocess", origin="the size of the padded batch")
class PaddedSize(PostprocessByHand):
    """Scales every image by the largest height and width of the batch."""

    def scale(self, sizes: Sizes) -> Int[Tensor, "batch 1 4"]:
        return super().scale(sizes.amax(0, keepdim=True))


@mutant("pp-first-size", rejects="PP-10", operation="postprocess", origin="sizes[0]")
class FirstSize(PostprocessByHand):
    """Scales every image as the first."""

    def scale(self, sizes: Sizes) -> Int[Tensor, "batch 1 4"]:
        return super().scale(sizes[:1])


@mutant("pp-clamped", rejects="PP-11", operation="postprocess", origin="clip_boxes_to_image")
class Clamped(PostprocessByHand):
    """Cuts boxes off at the borders of the image."""

    def corners(self, boxes: Boxes) -> Boxes:
        return super().corners(boxes).clamp(0, 1)


@mutant("pp-suppressed", rejects="PP-12", operation="postprocess", origin="batched_nms out of habit")
class Suppressed(PostprocessByHand):
    """Puts pairs behind all others whose box lies on a better one of the same class."""

    def __call__(self, pred_logits: Logits, pred_boxes: Boxes, sizes: Sizes, **settings: Any) -> dict[str, Tensor]:
        self.last = self.corners(self.wide(pred_boxes))
        return super().__call__(pred_logits, pred_boxes, sizes, **settings)

    def best_pairs(self, logits: Logits, num_select: int) -> Chosen:
        logits = torch.where(self.covered(self.probabilities(logits)), logits - 20, logits)
        return super().best_pairs(logits, num_select)

    def each_query(self, logits: Logits, num_select: int) -> Chosen:
        score, label, query = super().each_query(logits, num_select)
        mine = torch.zeros_like(logits).scatter(-1, label[..., None], score[..., None])
        return score * ~self.covered(mine).gather(-1, label[..., None])[..., 0], label, query

    def covered(self, scores: Logits) -> Tensor:
        """Where a better score of the same class has a box with more than 0.7 of both in common."""
        low = torch.maximum(self.last[:, :, None, :2], self.last[:, None, :, :2])
        high = torch.minimum(self.last[:, :, None, 2:], self.last[:, None, :, 2:])
        common = (high - low).clamp(min=0).prod(-1)
        area = (self.last[..., 2:] - self.last[..., :2]).prod(-1)
        near = common > 0.7 * (area[:, :, None] + area[:, None] - common)
        better = scores[:, None] > scores[:, :, None]
        return (near[..., None] & better).any(2)


@mutant("pp-labels-from-one", rejects="PP-13", operation="postprocess", origin="COCO's category ids")
class LabelsFromOne(PostprocessByHand):
    """Numbers classes from 1."""

    def labels(self, labels: Tensor) -> Tensor:
        return labels + 1


@mutant("pp-floating-labels", rejects="PP-13", operation="postprocess", origin="one table (x, y, x, y, score, label)")
class FloatingLabels(PostprocessByHand):
    """Returns labels as floats."""

    def labels(self, labels: Tensor) -> Tensor:
        return labels.float()


@mutant("pp-in-half", rejects="PP-14", operation="postprocess", origin="no conversion")
class InHalf(PostprocessByHand):
    """Computes in the dtypes of the predictions."""

    def wide(self, tensor: Tensor) -> Tensor:
        return tensor


@mutant("pp-sizes-in-half", rejects="PP-14", operation="postprocess", origin="sizes.to(pred_boxes.dtype)")
class SizesInHalf(PostprocessByHand):
    """Rounds the sizes to bfloat16, which has no 1333."""

    def scale(self, sizes: Sizes) -> Tensor:
        return super().scale(sizes).bfloat16()


@mutant("pp-any-number-of-sizes", rejects="PP-15", operation="postprocess", origin="zip, and broadcasting")
class AnyNumberOfSizes(PostprocessByHand):
    """Repeats the last size for images that have none, and drops sizes without an image."""

    def __call__(self, pred_logits: Logits, pred_boxes: Boxes, sizes: Sizes, **settings: Any) -> dict[str, Tensor]:
        index = torch.arange(len(pred_logits)).clamp(max=len(sizes) - 1)
        return super().__call__(pred_logits, pred_boxes, sizes[index], **settings)


@mutant("pp-any-scores", rejects="PP-16", operation="postprocess", origin="`else:` for sigmoid")
class AnyScores(PostprocessByHand):
    """Takes every other word for sigmoid."""

    def check(self, logits: Logits, sizes: Sizes, scores: str) -> None:
        super().check(logits, sizes, "sigmoid")
