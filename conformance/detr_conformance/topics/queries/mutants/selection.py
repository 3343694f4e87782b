"""Mutants of the selection of queries (SEL-30 to SEL-40)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.queries.mutants.proposals_and_refinement import Boxes, Indices, Memory, SelectionByHand

Logits = Float[Tensor, "batch cell classes"]
Scores = Float[Tensor, "batch cell"]


@mutant("selection-by-the-sum", rejects="SEL-30", operation="select_queries", origin="sum(-1), as an objectness")
class ByTheSum(SelectionByHand):
    """Adds the probabilities of all classes."""

    def largest(self, class_logits: Logits) -> Scores:
        return class_logits.mean(-1)


@mutant("selection-always-first", rejects="SEL-30", operation="select_queries", origin="Deformable DETR's line kept")
class AlwaysFirst(SelectionByHand):
    """Looks at channel 0 whatever the score."""

    def largest(self, class_logits: Logits) -> Scores:
        return self.first(class_logits)


@mutant("selection-without-last-class", rejects="SEL-30", operation="select_queries", origin="a no-object class: [:-1]")
class WithoutLastClass(SelectionByHand):
    """Leaves out the last of several classes."""

    def largest(self, class_logits: Logits) -> Scores:
        return class_logits[..., : max(1, class_logits.shape[-1] - 1)].amax(-1)


@mutant("selection-never-first", rejects="SEL-31", operation="select_queries", origin="DINO's line kept")
class NeverFirst(SelectionByHand):
    """Takes the maximum whatever the score."""

    def first(self, class_logits: Logits) -> Scores:
        return self.largest(class_logits)


@mutant("selection-last-channel", rejects="SEL-31", operation="select_queries", origin="[..., -1]")
class LastChannel(SelectionByHand):
    """Looks at the last channel."""

    def first(self, class_logits: Logits) -> Scores:
        return class_logits[..., -1]


@mutant("selection-unsorted", rejects="SEL-32", operation="select_queries", origin="topk(sorted=False)")
class Unsorted(SelectionByHand):
    """Returns the best cells in the order of the memory."""

    def best(self, scores: Scores, num_queries: int) -> Indices:
        return super().best(scores, num_queries).sort(1).values


@mutant("selection-worst", rejects="SEL-32", operation="select_queries", origin="argsort, which rises")
class Worst(SelectionByHand):
    """Takes the lowest scores."""

    def best(self, scores: Scores, num_queries: int) -> Indices:
        return super().best(-scores, num_queries)


@mutant("selection-by-probability", rejects="SEL-32", operation="select_queries", origin="sigmoid().topk()")
class ByProbability(SelectionByHand):
    """Compares sigmoids, many of which are equal."""

    def best(self, scores: Scores, num_queries: int) -> Indices:
        return super().best(scores.sigmoid(), num_queries)


@mutant("selection-rising", rejects="SEL-32", operation="select_queries", origin="argsort()[-n:]")
class Rising(SelectionByHand):
    """Returns the best cell last."""

    def best(self, scores: Scores, num_queries: int) -> Indices:
        return super().best(scores, num_queries).flip(1)


@mutant("selection-first-rows", rejects="SEL-33", operation="select_queries", origin="[:, :num_queries] after a sort")
class FirstRows(SelectionByHand):
    """Returns the first rows, as if they had been sorted too."""

    def rows(self, tensor: Memory, indices: Indices, scores: Scores) -> Memory:
        return tensor[:, : indices.shape[1]].clone()


@mutant("selection-by-product", rejects="SEL-33", operation="select_queries", origin="gather as a matrix product")
class ByProduct(SelectionByHand):
    """Multiplies by a one-hot matrix, in which infinite proposals become NaN."""

    def rows(self, tensor: Memory, indices: Indices, scores: Scores) -> Memory:
        one_hot = torch.nn.functional.one_hot(indices, tensor.shape[1]).to(tensor.dtype)
        return one_hot @ tensor


@mutant("selection-memory-otherwise", rejects="SEL-33", operation="select_queries", origin="two topk calls")
class MemoryOtherwise(SelectionByHand):
    """Returns the memory in the order of the cells."""

    def rows(self, tensor: Memory, indices: Indices, scores: Scores) -> Memory:
        return super().rows(tensor, indices.sort(1).values if tensor.shape[-1] != 4 else indices, scores)


@mutant("selection-first-image", rejects="SEL-34", operation="select_queries", origin="indices of one image for all")
class FirstImage(SelectionByHand):
    """Takes the cells of the first image in all."""

    def best(self, scores: Scores, num_queries: int) -> Indices:
        return super().best(scores, num_queries)[:1].expand(len(scores), -1).clone()


@mutant("selection-over-the-batch", rejects="SEL-34", operation="select_queries", origin="flatten, topk, remainder")
class OverTheBatch(SelectionByHand):
    """Ranks the cells of all images together and gives each as many queries in turn."""

    def best(self, scores: Scores, num_queries: int) -> Indices:
        batch, cells = scores.shape
        return super().best(scores.view(1, -1), batch * num_queries).view(batch, num_queries) % cells


@mutant("selection-searched", rejects="SEL-35", operation="select_queries", origin="indices by comparing values")
class Searched(SelectionByHand):
    """Looks for the cells that have the best scores, and finds the first of equal ones again and again."""

    def best(self, scores: Scores, num_queries: int) -> Indices:
        values = scores.sort(1, descending=True).values[:, :num_queries]
        return (scores[:, None] == values[..., None]).to(torch.uint8).argmax(-1)


@mutant(
    "selection-sorted-twice", rejects="SEL-35", operation="select_queries", origin="an unstable sort for each output"
)
class SortedTwice(SelectionByHand):
    """Sorts again for the rows, and orders equal scores otherwise."""

    def rows(self, tensor: Memory, indices: Indices, scores: Scores) -> Memory:
        backward = scores.flip(1).argsort(dim=1, descending=True, stable=True)[:, : indices.shape[1]]
        return super().rows(tensor, scores.shape[1] - 1 - backward, scores)


@mutant("selection-valid-only", rejects="SEL-36", operation="select_queries", origin="lw_detr: scores of -inf, for all")
class ValidOnly(SelectionByHand):
    """Ranks invalid proposals last."""

    def masked(self, scores: Scores, proposals: Boxes) -> Scores:
        return scores.masked_fill(proposals.isinf().any(-1), -torch.inf)


@mutant("selection-best-for-infinite", rejects="SEL-36", operation="select_queries", origin="cells of -inf not queried")
class BestForInfinite(SelectionByHand):
    """Takes the best cell again in place of cells whose score is -inf."""

    def best(self, scores: Scores, num_queries: int) -> Indices:
        indices = super().best(scores, num_queries)
        return torch.where(scores.gather(1, indices).isinf(), indices[:, :1], indices)


@mutant("selection-short-indices", rejects="SEL-37", operation="select_queries", origin="int32 kernels")
class ShortIndices(SelectionByHand):
    """Returns indices as int32."""

    def returned(self, indices: Indices) -> Indices:
        return indices.int()


@mutant(
    "selection-as-many-as-there-are", rejects="SEL-38", operation="select_queries", origin="min(num_queries, cells)"
)
class AsManyAsThereAre(SelectionByHand):
    """Returns fewer queries than asked for."""

    def check(self, scores: Scores, num_queries: int) -> None:
        super().check(scores, min(num_queries, scores.shape[1]))


@mutant("selection-nan-refused", rejects="SEL-39", operation="select_queries", origin="assert not scores.isnan().any()")
class NaNRefused(SelectionByHand):
    """Takes the whole batch down for one image."""

    def check(self, scores: Scores, num_queries: int) -> None:
        super().check(scores, num_queries)
        if scores.isnan().any():
            raise ValueError("a score is NaN")


@mutant(
    "selection-scores-of-the-batch",
    rejects="SEL-39",
    operation="select_queries",
    origin="scores.softmax over the batch",
)
class ScoresOfTheBatch(SelectionByHand):
    """Ranks by a softmax over the batch, in which one NaN makes all scores NaN."""

    def scores(self, class_logits: Tensor, score: str) -> Scores:
        scores = super().scores(class_logits, score)
        return torch.softmax(scores.flatten().double(), 0).view_as(scores)


@mutant("selection-detached", rejects="SEL-40", operation="select_queries", origin="DINO detaches after the gather")
class Detached(SelectionByHand):
    """Hands out detached proposals."""

    def rows(self, tensor: Memory, indices: Indices, scores: Scores) -> Memory:
        rows = super().rows(tensor, indices, scores)
        return rows.detach() + 0 * rows if tensor.shape[-1] == 4 else rows


@mutant("selection-gradient-by-rank", rejects="SEL-40", operation="select_queries", origin="backward of a slice")
class GradientByRank(SelectionByHand):
    """Sends gradients to the first rows."""

    def rows(self, tensor: Memory, indices: Indices, scores: Scores) -> Memory:
        rows, first = super().rows(tensor, indices, scores), tensor[:, : indices.shape[1]]
        through = torch.where(first.isfinite(), first, 0.0)
        return torch.where(rows.isfinite(), rows.detach() + (through - through.detach()), rows.detach())


@mutant("selection-one-block", rejects="SEL-32", operation="select_queries", origin="a top-k in shared memory")
class OneBlock(SelectionByHand):
    """Ranks the first 1024 cells, as many as fit, or as many as are asked for."""

    def best(self, scores: Scores, num_queries: int) -> Indices:
        return super().best(scores[:, : max(1024, num_queries)], num_queries)


@mutant("selection-a-share-of-each-block", rejects="SEL-32", operation="select_queries", origin="a top-k of top-ks")
class AShareOfEachBlock(SelectionByHand):
    """Takes the best of the best of blocks, which are too few where good cells are neighbours."""

    def best(self, scores: Scores, num_queries: int) -> Indices:
        if scores.shape[1] < 128:
            return super().best(scores, num_queries)
        blocks = scores.split(64, 1)
        share = -(-num_queries // len(blocks))
        found = [super(AShareOfEachBlock, self).best(block, share) + 64 * i for i, block in enumerate(blocks)]
        candidates = torch.cat(found, 1)
        return candidates.gather(1, super().best(scores.gather(1, candidates), num_queries))


@mutant(
    "selection-indices-in-half", rejects="SEL-32", operation="select_queries", origin="indices cast with all outputs"
)
class IndicesInHalf(SelectionByHand):
    """Has indices pass through float16, which holds every whole number up to 2048."""

    def best(self, scores: Scores, num_queries: int) -> Indices:
        return super().best(scores, num_queries).half().long()


@mutant("selection-scores-in-half", rejects="SEL-32", operation="select_queries", origin="a head under autocast")
class ScoresInHalf(SelectionByHand):
    """Compares scores that are rounded to half precision."""

    def best(self, scores: Scores, num_queries: int) -> Indices:
        return super().best(scores.bfloat16(), num_queries)


@mutant("selection-rows-made-finite", rejects="SEL-33", operation="select_queries", origin="nan_to_num, to be safe")
class RowsMadeFinite(SelectionByHand):
    """Hands out zeros for NaN."""

    def rows(self, tensor: Memory, indices: Indices, scores: Scores) -> Memory:
        rows = super().rows(tensor, indices, scores)
        return torch.where(rows.isnan(), 0.0, rows)


@mutant(
    "selection-scores-with-gradient", rejects="SEL-40", operation="select_queries", origin="a straight-through gate"
)
class ScoresWithGradient(SelectionByHand):
    """Multiplies the rows by a gate of 1 that sends a gradient to their scores."""

    def rows(self, tensor: Memory, indices: Indices, scores: Scores) -> Memory:
        own = scores.gather(1, indices)[..., None]
        return super().rows(tensor, indices, scores) * (1 + torch.where(own.isfinite(), own - own.detach(), 0.0))
