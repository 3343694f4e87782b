"""Mutants of the matching that are right for ordinary boxes, small problems, or nearly (HM-25 to HM-27)."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.losses.cases.hard_matching import repaired
from detr_conformance.topics.losses.mutants.matching import Costs, Matching, MatchingByHand, Pairs


@mutant(
    "matching-boxes-cut-off",
    rejects="HM-25",
    operation="hungarian_matching",
    origin="boxes clipped to the image before they are compared",
)
class CutOff(MatchingByHand):
    """Takes the GIoU of what lies within the image."""

    def corners(self, boxes: Tensor) -> Tensor:
        return super().corners(boxes).clamp(0, 1)


@mutant(
    "matching-no-small-sides",
    rejects="HM-25",
    operation="hungarian_matching",
    origin="wh.clamp(min=0.01), so that logarithms of sides stay finite",
)
class NoSmallSides(MatchingByHand):
    """Takes sides below a hundredth for a hundredth."""

    def cost(self, logits: Tensor, boxes: Tensor, labels: Tensor, targets: Tensor, settings: Matching) -> Costs:
        long = torch.cat((boxes[:, :2], boxes[:, 2:].clamp(min=0.01)), -1)
        return super().cost(logits, long, labels, targets, settings)


@mutant(
    "matching-share-of-the-hull-left-out",
    rejects="HM-25",
    operation="hungarian_matching",
    origin="IoU where boxes meet, 0 where they do not",
)
class NothingApart(MatchingByHand):
    """Takes all pairs that are apart for equally bad."""

    def from_areas(self, shared: Costs, both: Costs, hull: Costs, eps: float) -> Costs:
        return torch.where(shared > 0, super().from_areas(shared, both, hull, eps), 0.0)


@mutant(
    "matching-greedy-repaired",
    rejects="HM-26",
    operation="hungarian_matching",
    origin="local search in place of an exact solver",
)
class GreedyRepaired(MatchingByHand):
    """Improves greedy pairs by exchanges of two and three boxes."""

    def assigned(self, cost: NDArray[np.float64]) -> Pairs:
        queries, boxes = cost.shape
        if not 0 < boxes <= min(queries, 20):
            return super().assigned(cost)
        query, box = repaired(cost)
        order = np.argsort(query)
        return np.array(query)[order], np.array(box)[order]


@mutant(
    "matching-auction-stopped-early",
    rejects="HM-26",
    operation="hungarian_matching",
    origin="Bertsekas' auction with steps of a hundredth, for accelerators",
)
class Auction(MatchingByHand):
    """Lets boxes bid for queries, by steps of a fiftieth at least."""

    step = 0.02

    def assigned(self, cost: NDArray[np.float64]) -> Pairs:
        if not 1 < cost.shape[1] <= cost.shape[0]:
            return super().assigned(cost)
        price, owner, waiting = np.zeros(len(cost)), np.full(len(cost), -1), list(range(cost.shape[1]))
        while waiting:
            box = waiting.pop()
            total = cost[:, box] + price
            first, second = np.argpartition(total, 1)[:2]
            price[first] += total[second] - total[first] + self.step
            if owner[first] >= 0:
                waiting.append(int(owner[first]))
            owner[first] = box
        query = (owner >= 0).nonzero()[0]
        return query, owner[query]


@mutant(
    "matching-labels-of-eight-bits",
    rejects="HM-27",
    operation="hungarian_matching",
    origin="labels kept as uint8, as masks are",
)
class EightBits(MatchingByHand):
    """Takes labels modulo 256."""

    def labels(self, labels: Int[Tensor, " box"], counts: Int[Tensor, " batch"]) -> Int[Tensor, " box"]:
        return labels % 256


@mutant(
    "matching-sixty-four-images",
    rejects="HM-27",
    operation="hungarian_matching",
    origin="a fixed pool of workers, each of which keeps one image",
)
class SixtyFourImages(MatchingByHand):
    """Assigns image 64 by the predictions of image 0, and so on."""

    def cut(self, cost: Float[Tensor, "batch query box"], counts: list[int]) -> list[Tensor]:
        return [own[image % 64] for image, own in enumerate(cost.split(counts, -1))]


@mutant(
    "matching-best-queries-only",
    rejects="HM-27",
    operation="hungarian_matching",
    origin="queries pruned before they are matched",
)
class BestQueriesOnly(MatchingByHand):
    """Looks at the 32 cheapest queries of all boxes, where there are more than 512."""

    def assigned(self, cost: NDArray[np.float64]) -> Pairs:
        if len(cost) <= 512 or cost.shape[1] < 64:
            return super().assigned(cost)
        kept = np.sort(np.argsort(cost.mean(1))[: 2 * cost.shape[1]])
        query, box = super().assigned(cost[kept])
        return kept[query], box
