"""Right Hungarian matchings, each written in another way than the reference."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from detr_conformance.evidence.registry import twin
from detr_conformance.topics.losses.mutants.matching import Costs, Matching, MatchingByHand, Pairs


def by_query(query: NDArray[np.int64], box: NDArray[np.int64]) -> Pairs:
    order = np.argsort(query)
    return query[order], box[order]


@twin("matching-last-query-first", operation="hungarian_matching", origin="ties may be resolved in any way")
class LastQueryFirst(MatchingByHand):
    """Turns the queries and the boxes round before they are assigned, so that ties fall out otherwise."""

    def assigned(self, cost: NDArray[np.float64]) -> Pairs:
        query, box = linear_sum_assignment(cost[::-1, ::-1])
        return by_query(cost.shape[0] - 1 - query, cost.shape[1] - 1 - box)


@twin("matching-augmenting-paths", operation="hungarian_matching", origin="a Hungarian algorithm without scipy")
class AugmentingPaths(MatchingByHand):
    """Adds one box after another along the cheapest augmenting path, with prices of boxes and queries."""

    def assigned(self, cost: NDArray[np.float64]) -> Pairs:
        if cost.shape[0] < cost.shape[1]:
            box, query = _assigned(cost.tolist())
        else:
            query, box = _assigned(cost.T.tolist())
        return by_query(np.array(query, dtype=np.int64), np.array(box, dtype=np.int64))


def _assigned(cost: list[list[float]]) -> tuple[list[int], list[int]]:
    """Columns and rows of the cheapest pairs; no more rows than columns. Column 0 is where each path begins."""
    rows, columns = len(cost), len(cost[0]) if cost else 0
    row_price, column_price, taken_by = [0.0] * (rows + 1), [0.0] * (columns + 1), [0] * (columns + 1)
    for new in range(1, rows + 1):
        taken_by[0] = new
        column, slack, seen, before = 0, [math.inf] * (columns + 1), [False] * (columns + 1), [0] * (columns + 1)
        while taken_by[column]:
            seen[column], row, step, following = True, taken_by[column], math.inf, 0
            for other in range(1, columns + 1):
                if seen[other]:
                    continue
                reduced = cost[row - 1][other - 1] - row_price[row] - column_price[other]
                if reduced < slack[other]:
                    slack[other], before[other] = reduced, column
                if slack[other] < step:
                    step, following = slack[other], other
            for other in range(columns + 1):
                if seen[other]:
                    row_price[taken_by[other]] += step
                    column_price[other] -= step
                else:
                    slack[other] -= step
            column = following
        while column:
            taken_by[column] = taken_by[before[column]]
            column = before[column]
    found = [(column - 1, taken_by[column] - 1) for column in range(1, columns + 1) if taken_by[column]]
    return [column for column, _ in found], [row for _, row in found]


@twin("matching-log-space", operation="hungarian_matching", origin="log(p + eps) as a sum in log space")
class LogSpace(MatchingByHand):
    """Takes the logarithms of probabilities directly from the logits."""

    def focal(self, logits: Tensor, labels: Tensor, settings: Matching) -> Costs:
        chosen = logits[:, labels]
        eps = torch.tensor(math.log(self.eps), dtype=chosen.dtype)
        yes, no = F.logsigmoid(chosen), F.logsigmoid(-chosen)
        positive = settings.alpha * torch.exp(settings.gamma * no) * torch.logaddexp(yes, eps)
        negative = (1 - settings.alpha) * torch.exp(settings.gamma * yes) * torch.logaddexp(no, eps)
        return negative - positive


@twin("matching-padded", operation="hungarian_matching", origin="square problems for batched solvers on accelerators")
class Padded(MatchingByHand):
    """Fills each image up to a square with pairs of one high cost, and drops them afterwards."""

    def assigned(self, cost: NDArray[np.float64]) -> Pairs:
        side = max(cost.shape)
        square = np.full((side, side), np.abs(cost).max(initial=0.0) + 1)
        square[: cost.shape[0], : cost.shape[1]] = cost
        query, box = linear_sum_assignment(square)
        real = (query < cost.shape[0]) & (box < cost.shape[1])
        return query[real], box[real]
