"""Mutants of the assignment and of its frame (HM-1 to HM-3, HM-13 to HM-24)."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.losses.mutants.matching import Costs, Matching, MatchingByHand, Pairs


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


@mutant(
    "matching-empty-images-skipped",
    rejects="HM-15",
    operation="hungarian_matching",
    origin="if len(boxes) == 0: continue",
)
class EmptyImagesSkipped(MatchingByHand):
    """Numbers only the images that have boxes."""

    def cut(self, cost: Float[Tensor, "batch query box"], counts: list[int]) -> list[Tensor]:
        return [own for own in super().cut(cost, counts) if own.shape[1]]


@mutant("matching-needs-a-box", rejects="HM-15", operation="hungarian_matching", origin="max() of nothing")
class NeedsABox(MatchingByHand):
    """Fails where no image has a box."""

    def repaired(self, cost: Float[Tensor, "batch query box"]) -> Tensor:
        return cost - cost.max().clamp(max=0)


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


@mutant(
    "matching-area-divided-by",
    rejects="HM-17",
    operation="hungarian_matching",
    origin="facebookresearch/detr, box_ops.py",
)
class AreaDividedBy(MatchingByHand):
    """Divides by areas of 0, and scipy refuses the result."""

    def share(self, part: Costs, whole: Costs) -> Costs:
        return part / whole


@mutant("matching-area-required", rejects="HM-17", operation="hungarian_matching", origin="an assertion on boxes")
class AreaRequired(MatchingByHand):
    """Asserts that boxes have an area."""

    def giou(self, boxes: Tensor, targets: Tensor, eps: float) -> Costs:
        if not ((boxes[:, 2:] > 0).all() and (targets[:, 2:] > 0).all()):
            raise ValueError("a box without area")
        return super().giou(boxes, targets, eps)


@mutant("matching-view", rejects="HM-18", operation="hungarian_matching", origin="view() of the predictions")
class View(MatchingByHand):
    """Flattens by a view, which strided predictions do not have."""

    def flat(self, predictions: Tensor) -> Tensor:
        return predictions.view(-1, predictions.shape[-1])


@mutant(
    "matching-targets-converted", rejects="HM-18", operation="hungarian_matching", origin="corners written into targets"
)
class TargetsConverted(MatchingByHand):
    """Leaves the targets as corners behind."""

    def leave(self, target_boxes: Tensor) -> None:
        target_boxes.copy_(self.corners(target_boxes.clone()))


@mutant("matching-needs-detached", rejects="HM-19", operation="hungarian_matching", origin="no @torch.no_grad()")
class NeedsDetached(MatchingByHand):
    """Reads the cost matrix out of the graph, which numpy refuses."""

    def without_gradients(self) -> AbstractContextManager[Any]:
        return nullcontext()


@mutant("matching-nan-replaced", rejects="HM-20", operation="hungarian_matching", origin="transformers, nan_to_num")
class NaNReplaced(MatchingByHand):
    """Replaces costs that are no numbers by the largest one there is."""

    def check_predictions(self, logits: Tensor, boxes: Tensor) -> None:
        pass

    def repaired(self, cost: Tensor) -> Tensor:
        highest = torch.finfo(cost.dtype).max
        return cost.nan_to_num(nan=highest, posinf=highest, neginf=highest)


@mutant("matching-costs-checked", rejects="HM-20", operation="hungarian_matching", origin="scipy's own check")
class CostsChecked(MatchingByHand):
    """Checks the costs, where an infinite logit and one of another class do not show."""

    def check_predictions(self, logits: Tensor, boxes: Tensor) -> None:
        pass

    def assigned(self, cost: NDArray[np.float64]) -> Pairs:
        for query, row in enumerate(cost):
            if not np.isfinite(row).all():
                raise self.broken(2, query, cost.shape[0])
        return super().assigned(cost)


@mutant("matching-nan-only", rejects="HM-20", operation="hungarian_matching", origin="isnan() for isfinite()")
class NaNOnly(MatchingByHand):
    """Lets infinite predictions pass."""

    def check_predictions(self, logits: Tensor, boxes: Tensor) -> None:
        super().check_predictions(*(t.nan_to_num(nan=torch.nan, posinf=0.0, neginf=0.0) for t in (logits, boxes)))

    def repaired(self, cost: Tensor) -> Tensor:
        return cost.nan_to_num(posinf=1e3, neginf=-1e3)


@mutant(
    "matching-unnamed", rejects="HM-21", operation="hungarian_matching", origin="scipy: matrix contains invalid entries"
)
class Unnamed(MatchingByHand):
    """Does not say which prediction is broken."""

    def broken(self, image: int, query: int, queries: int) -> Exception:
        return ValueError("the predictions contain NaN or infinity")


@mutant("matching-flat-index", rejects="HM-21", operation="hungarian_matching", origin="an index into the flat batch")
class FlatIndex(MatchingByHand):
    """Names the index in the flat batch."""

    def broken(self, image: int, query: int, queries: int) -> Exception:
        return ValueError(f"prediction {image * queries + query} is broken")


@mutant(
    "matching-counts-unchecked", rejects="HM-22", operation="hungarian_matching", origin="boxes[start : start + count]"
)
class CountsUnchecked(MatchingByHand):
    """Leaves boxes out that no image counts."""

    def check_targets(self, logits: Tensor, labels: Tensor, boxes: Tensor, counts: Tensor) -> None:
        self.check_labels(labels, logits.shape[-1])

    def cost(self, logits: Tensor, boxes: Tensor, labels: Tensor, targets: Tensor, settings: Matching) -> Costs:
        common = min(len(labels), len(targets))
        return super().cost(logits, boxes, labels[:common], targets[:common], settings)

    def cut(self, cost: Float[Tensor, "batch query box"], counts: list[int]) -> list[Tensor]:
        ends = np.cumsum([0, *counts])
        return [own[:, ends[image] : ends[image + 1]] for image, own in enumerate(cost)]


@mutant("matching-labels-wrap", rejects="HM-23", operation="hungarian_matching", origin="Python's negative indices")
class LabelsWrap(MatchingByHand):
    """Takes label -1 for the last class."""

    def check_labels(self, labels: Tensor, classes: int) -> None:
        pass


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


@mutant("matching-images-uncounted", rejects="HM-22", operation="hungarian_matching", origin="zip(images, counts)")
class ImagesUncounted(MatchingByHand):
    """Checks the sum of the counts alone, not how many there are."""

    def check_targets(self, logits: Tensor, labels: Tensor, boxes: Tensor, counts: Tensor) -> None:
        if not len(labels) == len(boxes) == int(counts.sum()) or min(counts.tolist()) < 0:
            raise ValueError(f"{len(labels)} labels and {len(boxes)} boxes for images of {counts.tolist()}")
        self.check_labels(labels, logits.shape[-1])

    def cut(self, cost: Float[Tensor, "batch query box"], counts: list[int]) -> list[Tensor]:
        return [own[image] for image, own in enumerate(cost.split(counts, -1)[: len(cost)])]


@mutant(
    "matching-remembered", rejects="HM-24", operation="hungarian_matching", origin="a cache by pointers, across layers"
)
class Remembered(MatchingByHand):
    """Matches the same storage once."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, Tensor]] = {}

    def __call__(self, *arguments: Tensor, **settings: Any) -> dict[str, Tensor]:
        key = f"{[(a.data_ptr(), tuple(a.shape)) for a in arguments]} {arguments[-1].tolist()} {settings}"
        if key not in self.found:
            self.found[key] = super().__call__(*arguments, **settings)
        return {name: tensor.clone() for name, tensor in self.found[key].items()}
