"""Mutants of post-processing (PP-1 to PP-16)."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from detr_conformance.mutants.postprocess import Boxes, Chosen, Logits, PostprocessByHand, Sizes
from detr_conformance.mutants.registry import mutant

Scores = Float[Tensor, "batch pair"]
Index = Int[Tensor, "batch detection"]


def taken(scores: Tensor, count: int) -> Tensor:
    return scores.argsort(dim=1, descending=True)[:, :count]


# -- choosing pairs -------------------------------------------------------------------------------------------


@mutant("pp-one-class-a-query", rejects="PP-1", operation="postprocess", origin="scores.max(-1), then topk")
class OneClassAQuery(PostprocessByHand):
    """Keeps the best class of each query, and of them the best queries."""

    def best_pairs(self, logits: Logits, num_select: int) -> Chosen:
        scores, labels = self.probabilities(logits).max(-1)
        query = taken(scores, num_select)
        return scores.gather(1, query), labels.gather(1, query), query


@mutant(
    "pp-best-of-each-class",
    rejects="PP-1",
    operation="postprocess",
    origin="topk along the queries, as in Faster R-CNN",
)
class BestOfEachClass(PostprocessByHand):
    """Gives every class an equal part of the detections."""

    def best(self, scores: Scores, num_select: int) -> Index:
        count = min(num_select, scores.shape[1])
        table = scores.unflatten(1, (-1, self.classes))
        rank = table.argsort(dim=1, descending=True).argsort(dim=1).flatten(1)
        return taken(scores - rank, count)

    def best_pairs(self, logits: Logits, num_select: int) -> Chosen:
        self.classes = logits.shape[-1]
        return super().best_pairs(logits, num_select)


@mutant("pp-best-of-the-batch", rejects="PP-1", operation="postprocess", origin="topk over the flattened batch")
class BestOfTheBatch(PostprocessByHand):
    """Shares the detections between the images by their scores, and fills each up with its worst."""

    def best(self, scores: Scores, num_select: int) -> Index:
        count = min(num_select, scores.shape[1])
        least = scores.flatten().topk(count).values[-1]
        return torch.where(scores >= least, scores + 1, -scores).argsort(dim=1, descending=True)[:, :count]


@mutant(
    "pp-hundred-at-most", rejects="PP-1", operation="postprocess", origin="COCO's maxDets taken for that of an image"
)
class HundredAtMost(PostprocessByHand):
    """Keeps the best hundred and repeats the last of them."""

    def best(self, scores: Scores, num_select: int) -> Index:
        index = super().best(scores, num_select)
        return index[:, torch.arange(index.shape[1]).clamp(max=99)]


@mutant("pp-softmax-for-sigmoid", rejects="PP-1", operation="postprocess", origin="DETR's scores for focal training")
class SoftmaxForSigmoid(PostprocessByHand):
    """Lets the classes of a query compete."""

    def probabilities(self, logits: Logits) -> Logits:
        return logits.softmax(-1)


@mutant("pp-logits-for-scores", rejects="PP-1", operation="postprocess", origin="sigmoid forgotten")
class LogitsForScores(PostprocessByHand):
    """Returns logits as scores."""

    def probabilities(self, logits: Logits) -> Logits:
        return logits


@mutant("pp-last-class-dropped", rejects="PP-1", operation="postprocess", origin="[..., :-1] in both branches")
class LastClassDropped(PostprocessByHand):
    """Takes the last class for no object, which sigmoid scores do not have."""

    def probabilities(self, logits: Logits) -> Logits:
        return super().probabilities(logits) * (torch.arange(logits.shape[-1]) < logits.shape[-1] - 1)


@mutant("pp-divided-by-queries", rejects="PP-2", operation="postprocess", origin="index // num_queries")
class DividedByQueries(PostprocessByHand):
    """Decodes the index with the number of queries."""

    def decoded(self, index: Tensor, queries: int, classes: int) -> tuple[Tensor, Tensor]:
        return index % queries % classes, index // queries


@mutant("pp-sixteen-bit-index", rejects="PP-2", operation="postprocess", origin="uint16 indices of an exported model")
class SixteenBitIndex(PostprocessByHand):
    """Numbers pairs modulo 65536; 900 queries of 80 classes have more."""

    def decoded(self, index: Tensor, queries: int, classes: int) -> tuple[Tensor, Tensor]:
        return super().decoded(index % 65536, queries, classes)


@mutant("pp-boxes-in-order", rejects="PP-2", operation="postprocess", origin="boxes[:, :n], gather forgotten")
class BoxesInOrder(PostprocessByHand):
    """Pairs scores and labels with the boxes of the first queries."""

    def decoded(self, index: Tensor, queries: int, classes: int) -> tuple[Tensor, Tensor]:
        label, _ = super().decoded(index, queries, classes)
        return label, (torch.arange(index.shape[1]) % queries).expand(index.shape)


@mutant("pp-queries-of-the-first-image", rejects="PP-2", operation="postprocess", origin="boxes[:, query[0]]")
class QueriesOfTheFirstImage(PostprocessByHand):
    """Takes the queries of the first image for all."""

    def decoded(self, index: Tensor, queries: int, classes: int) -> tuple[Tensor, Tensor]:
        label, query = super().decoded(index, queries, classes)
        return label, query[:1].expand_as(query)


@mutant("pp-a-query-once", rejects="PP-3", operation="postprocess", origin="unique queries")
class AQueryOnce(PostprocessByHand):
    """Puts the second class of a query behind the first of all others."""

    def best_pairs(self, logits: Logits, num_select: int) -> Chosen:
        scores = self.probabilities(logits)
        first = scores == scores.amax(-1, keepdim=True)
        index = taken((scores + first).flatten(1), num_select)
        return scores.flatten(1).gather(1, index), *self.decoded(index, *logits.shape[1:])


@mutant("pp-worst-first", rejects="PP-4", operation="postprocess", origin="ascending order, the last n")
class WorstFirst(PostprocessByHand):
    """Takes the right pairs in rising order."""

    def best(self, scores: Scores, num_select: int) -> Index:
        return super().best(scores, num_select).flip(1)


@mutant("pp-unsorted", rejects="PP-4", operation="postprocess", origin="topk(sorted=False), nonzero of a mask")
class Unsorted(PostprocessByHand):
    """Takes the right pairs in the order of the queries."""

    def best(self, scores: Scores, num_select: int) -> Index:
        return super().best(scores, num_select).sort(dim=1).values


@mutant(
    "pp-too-few-pairs", rejects="PP-5", operation="postprocess", origin="DETR's topk: selected index k out of range"
)
class TooFewPairs(PostprocessByHand):
    """Raises where there are fewer pairs than detections asked for."""

    def best(self, scores: Scores, num_select: int) -> Index:
        return scores.topk(num_select, dim=1).indices


@mutant("pp-padded-to-the-number", rejects="PP-5", operation="postprocess", origin="arrays of fixed length")
class PaddedToTheNumber(PostprocessByHand):
    """Repeats the last detection until there are as many as asked for."""

    def best(self, scores: Scores, num_select: int) -> Index:
        index = super().best(scores, num_select)
        return torch.cat((index, index[:, -1:].expand(-1, num_select - index.shape[1])), 1)


@mutant("pp-found-by-score", rejects="PP-6", operation="postprocess", origin="(scores == value).nonzero()[0]")
class FoundByScore(PostprocessByHand):
    """Looks pairs up by their scores: of several equal ones the first, several times."""

    def best(self, scores: Scores, num_select: int) -> Index:
        values = scores.sort(dim=1, descending=True).values[:, :num_select]
        return (scores[:, None] == values[..., None]).int().argmax(-1)


@mutant("pp-all-above-threshold", rejects="PP-6", operation="postprocess", origin="scores >= the n-th")
class AllAboveThreshold(PostprocessByHand):
    """Takes everything as good as the n-th, which may be more than n."""

    def best(self, scores: Scores, num_select: int) -> Index:
        index = super().best(scores, num_select)
        least = scores.gather(1, index).amin(1, keepdim=True)
        return taken(scores, int((scores >= least).sum(1).max()))


# -- one detection a query ------------------------------------------------------------------------------------


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


# -- boxes ----------------------------------------------------------------------------------------------------


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
