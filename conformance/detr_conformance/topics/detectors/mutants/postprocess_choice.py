"""Mutants of post-processing: the choice of pairs of query and class (PP-1 to PP-6, PP-17)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.detectors.mutants.postprocess import Chosen, Logits, PostprocessByHand, Sizes

Scores = Float[Tensor, "batch pair"]
Index = Int[Tensor, "batch detection"]


def taken(scores: Tensor, count: int) -> Tensor:
    return scores.argsort(dim=1, descending=True)[:, :count]


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


@mutant("postprocess-softmax-overflows", rejects="PP-8", operation="postprocess", origin="exp(x) / exp(x).sum()")
class SoftmaxOverflows(PostprocessByHand):
    """Takes exponentials of logits as they are, which in float32 are infinite from 89 on."""

    def class_probabilities(self, logits: Logits) -> Logits:
        odds = logits.exp()
        return (odds / odds.sum(-1, keepdim=True))[..., :-1]


@mutant("pp-a-hundred-of-a-class", rejects="PP-17", operation="postprocess", origin="a table for each class")
class AHundredOfAClass(PostprocessByHand):
    """Returns no more than a hundred detections of a class, and the next best of others."""

    def best(self, scores: Float[Tensor, "batch pair"], num_select: int) -> Int[Tensor, "batch detection"]:
        order = super().best(scores, scores.shape[1])
        found = []
        for image in order:
            own = image % self.classes
            earlier = self.counted(own)
            found.append(image[earlier < 100][:num_select])
        return torch.stack(found)

    def counted(self, labels: Int[Tensor, " pair"]) -> Int[Tensor, " pair"]:
        """How many of its class come before each."""
        earlier = torch.zeros_like(labels)
        for label in labels.unique():
            own = (labels == label).nonzero()[:, 0]
            earlier[own] = torch.arange(len(own))
        return earlier

    def best_pairs(self, logits: Logits, num_select: int) -> Chosen:
        self.classes = logits.shape[-1]
        return super().best_pairs(logits, num_select)


@mutant("pp-labels-of-ten-bits", rejects="PP-17", operation="postprocess", origin="query and class in one word")
class LabelsOfTenBits(PostprocessByHand):
    """Gives label 1024 as 0."""

    def labels(self, labels: Tensor) -> Tensor:
        return labels % 1024


@mutant("pp-sizes-of-64-images", rejects="PP-17", operation="postprocess", origin="sizes in constant memory")
class SizesOf64Images(PostprocessByHand):
    """Scales all images from the sixty-fifth on as the sixty-fourth."""

    def scale(self, sizes: Sizes) -> Int[Tensor, "batch 1 4"]:
        return super().scale(sizes[torch.arange(len(sizes)).clamp(max=63)])
