"""Mutants of the assignment: which queries and boxes are paired, in which image (HM-1 to 3, HM-13, HM-14, HM-16)."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.losses.mutants.matching import MatchingByHand, Pairs


def _sorted(query: list[int], box: list[int]) -> Pairs:
    order = np.argsort(np.array(query, dtype=np.int64), kind="stable")
    return np.array(query, dtype=np.int64)[order], np.array(box, dtype=np.int64)[order]


@mutant("matching-each-box-its-best", rejects="HM-1", operation="hungarian_matching", origin="anchor assignment")
class EachBoxItsBest(MatchingByHand):
    """Gives each box the cheapest query, several boxes the same one."""

    def assigned(self, cost: NDArray[np.float64]) -> Pairs:
        if not cost.size:
            return super().assigned(cost)
        return _sorted(cost.argmin(0).tolist(), list(range(cost.shape[1])))


@mutant("matching-each-query-its-best", rejects="HM-1", operation="hungarian_matching", origin="one-to-many assignment")
class EachQueryItsBest(MatchingByHand):
    """Gives each query the cheapest box."""

    def assigned(self, cost: NDArray[np.float64]) -> Pairs:
        if not cost.size:
            return super().assigned(cost)
        return np.arange(cost.shape[0]), cost.argmin(1)


@mutant("matching-good-pairs-only", rejects="HM-1", operation="hungarian_matching", origin="a threshold on the cost")
class GoodPairsOnly(MatchingByHand):
    """Drops pairs that are dear."""

    def assigned(self, cost: NDArray[np.float64]) -> Pairs:
        query, box = super().assigned(cost)
        good = cost[query, box] < 1.0
        return query[good], box[good]


@mutant("matching-by-box", rejects="HM-2", operation="hungarian_matching", origin="linear_sum_assignment(cost.T)")
class ByBox(MatchingByHand):
    """Returns the pairs in the order of the boxes."""

    def assigned(self, cost: NDArray[np.float64]) -> Pairs:
        box, query = linear_sum_assignment(cost.T)
        return query, box


@mutant("matching-box-of-the-batch", rejects="HM-2", operation="hungarian_matching", origin="indices into flat targets")
class BoxOfTheBatch(MatchingByHand):
    """Numbers boxes through the batch."""

    def result(self, pairs: list[Pairs], counts: Int[Tensor, " batch"]) -> dict[str, Tensor]:
        result = super().result(pairs, counts)
        return result | {"target": result["target"] + (counts.cumsum(0) - counts)[result["image"]]}


@mutant("matching-int32", rejects="HM-2", operation="hungarian_matching", origin="numpy's default integer on Windows")
class Int32(MatchingByHand):
    """Returns int32."""

    def result(self, pairs: list[Pairs], counts: Int[Tensor, " batch"]) -> dict[str, Tensor]:
        return {name: tensor.int() for name, tensor in super().result(pairs, counts).items()}


@mutant("matching-greedy", rejects="HM-3", operation="hungarian_matching", origin="non-maximum suppression's way")
class Greedy(MatchingByHand):
    """Takes the cheapest remaining pair again and again."""

    def assigned(self, cost: NDArray[np.float64]) -> Pairs:
        left, query, box = cost.copy(), [], []
        for _ in range(min(cost.shape)):
            q, t = np.unravel_index(left.argmin(), left.shape)
            query.append(int(q))
            box.append(int(t))
            left[q], left[:, t] = np.inf, np.inf
        return _sorted(query, box)


@mutant("matching-box-by-box", rejects="HM-3", operation="hungarian_matching", origin="a loop over boxes")
class BoxByBox(MatchingByHand):
    """Lets one box after another choose among the queries that are left."""

    def assigned(self, cost: NDArray[np.float64]) -> Pairs:
        left, query = cost.copy(), []
        for box in range(min(cost.shape)):
            query.append(int(left[:, box].argmin()))
            left[query[-1]] = np.inf
        return _sorted(query, list(range(len(query))))


@mutant("matching-whole-numbers", rejects="HM-3", operation="hungarian_matching", origin="solvers for integer costs")
class WholeNumbers(MatchingByHand):
    """Rounds costs to whole numbers."""

    def readable(self, cost: Float[Tensor, "query own"]) -> NDArray[np.float64]:
        return super().readable(cost).round()


@mutant("matching-first-queries", rejects="HM-3", operation="hungarian_matching", origin="a solver of fixed size")
class FirstQueries(MatchingByHand):
    """Assigns among the first 256 queries, as many as its solver has room for."""

    def assigned(self, cost: NDArray[np.float64]) -> Pairs:
        return super().assigned(cost[:256])


@mutant("matching-at-most-a-hundred", rejects="HM-3", operation="hungarian_matching", origin="boxes padded to 100")
class AtMostAHundred(MatchingByHand):
    """Drops boxes of an image behind the hundredth."""

    def assigned(self, cost: NDArray[np.float64]) -> Pairs:
        return super().assigned(cost[:, :100])


@mutant("matching-one-for-the-batch", rejects="HM-13", operation="hungarian_matching", origin="the cost matrix not cut")
class OneForTheBatch(MatchingByHand):
    """Assigns the queries of all images to the boxes of all images, and keeps the pairs within an image."""

    def cut(self, cost: Float[Tensor, "batch query box"], counts: list[int]) -> list[Tensor]:
        images, queries, boxes = cost.shape
        rows, columns = super().assigned(cost.reshape(images * queries, boxes).cpu().double().numpy())
        own = super().cut(cost, counts)
        starts = np.cumsum([0, *counts])
        kept = []
        for image, table in enumerate(own):
            inside = (rows // queries == image) & (columns >= starts[image]) & (columns < starts[image + 1])
            wish = torch.full_like(table, 1e3)
            wish[rows[inside] % queries, columns[inside] - starts[image]] = 0
            kept.append(wish)
        return kept


@mutant("matching-first-image-for-all", rejects="HM-13", operation="hungarian_matching", origin="cost[0] in a loop")
class FirstImageForAll(MatchingByHand):
    """Assigns the boxes of every image by the predictions of the first."""

    def cut(self, cost: Float[Tensor, "batch query box"], counts: list[int]) -> list[Tensor]:
        return [own[0] for own in cost.split(counts, -1)]


@mutant(
    "matching-queries-before-images", rejects="HM-13", operation="hungarian_matching", origin="(query, batch) layout"
)
class QueriesBeforeImages(MatchingByHand):
    """Takes the flat predictions to lie query by query."""

    def repaired(self, cost: Float[Tensor, "batch query box"]) -> Tensor:
        images, queries, boxes = cost.shape
        return cost.reshape(queries, images, boxes).transpose(0, 1)


@mutant(
    "matching-mixed-when-crowded", rejects="HM-14", operation="hungarian_matching", origin="always queries >= boxes"
)
class MixedWhenCrowded(MatchingByHand):
    """Exchanges queries and boxes where there are more boxes."""

    def assigned(self, cost: NDArray[np.float64]) -> Pairs:
        query, box = super().assigned(cost)
        return _sorted(box.tolist(), query.tolist()) if cost.shape[0] < cost.shape[1] else (query, box)


@mutant("matching-first-boxes", rejects="HM-14", operation="hungarian_matching", origin="targets cut to num_queries")
class FirstBoxes(MatchingByHand):
    """Looks at no more boxes than there are queries."""

    def assigned(self, cost: NDArray[np.float64]) -> Pairs:
        return super().assigned(cost[:, : cost.shape[0]])


@mutant("matching-queries-reused", rejects="HM-14", operation="hungarian_matching", origin="every box must be learned")
class QueriesReused(MatchingByHand):
    """Assigns the boxes that are left over to the queries once more."""

    def assigned(self, cost: NDArray[np.float64]) -> Pairs:
        query, box = super().assigned(cost)
        if cost.shape[0] == 0 or cost.shape[0] >= cost.shape[1]:
            return query, box
        rest = [t for t in range(cost.shape[1]) if t not in box.tolist()]
        return _sorted(query.tolist() + cost[:, rest].argmin(0).tolist(), box.tolist() + rest)


@mutant("matching-equal-is-matched", rejects="HM-16", operation="hungarian_matching", origin="cost == cost.min()")
class EqualIsMatched(MatchingByHand):
    """Marks every pair as good as the assigned one in its column."""

    def assigned(self, cost: NDArray[np.float64]) -> Pairs:
        chosen = super().assigned(cost)
        if not cost.size:
            return chosen
        value = dict(zip(chosen[1].tolist(), cost[chosen].tolist(), strict=True))
        found = [(q, t) for t in value for q in range(cost.shape[0]) if cost[q, t] == value[t]]
        return _sorted([q for q, _ in found], [t for _, t in found])


@mutant("matching-boxes-by-value", rejects="HM-16", operation="hungarian_matching", origin="targets.index(box)")
class BoxesByValue(MatchingByHand):
    """Looks the assigned box up by its costs, and finds the first of equal ones."""

    def assigned(self, cost: NDArray[np.float64]) -> Pairs:
        query, box = super().assigned(cost)
        columns = [cost[:, t].tolist() for t in range(cost.shape[1])]
        return query, np.array([columns.index(columns[t]) for t in box], dtype=np.int64)
