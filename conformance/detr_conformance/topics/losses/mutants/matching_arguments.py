"""Mutants of the matching: what it accepts, refuses, changes and remembers (HM-15, HM-17 to HM-24, HM-28)."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.losses.mutants.matching import Costs, Matching, MatchingByHand, Pairs


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


@mutant("matching-images-uncounted", rejects="HM-22", operation="hungarian_matching", origin="zip(images, counts)")
class ImagesUncounted(MatchingByHand):
    """Checks the sum of the counts alone, not how many there are."""

    def check_targets(self, logits: Tensor, labels: Tensor, boxes: Tensor, counts: Tensor) -> None:
        if not len(labels) == len(boxes) == int(counts.sum()) or min(counts.tolist()) < 0:
            raise ValueError(f"{len(labels)} labels and {len(boxes)} boxes for images of {counts.tolist()}")
        self.check_labels(labels, logits.shape[-1])

    def cut(self, cost: Float[Tensor, "batch query box"], counts: list[int]) -> list[Tensor]:
        return [own[image] for image, own in enumerate(cost.split(counts, -1)[: len(cost)])]


@mutant("matching-labels-wrap", rejects="HM-23", operation="hungarian_matching", origin="Python's negative indices")
class LabelsWrap(MatchingByHand):
    """Takes label -1 for the last class."""

    def check_labels(self, labels: Tensor, classes: int) -> None:
        pass


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


@mutant(
    "matching-keeps-predictions",
    rejects="HM-28",
    operation="hungarian_matching",
    origin="a histogram of an epoch",
)
class KeepsPredictions(MatchingByHand):
    """Remembers what it was asked, with the graph of the whole step."""

    def __init__(self) -> None:
        self.asked: list[Tensor] = []

    def __call__(self, *arguments: Tensor, **settings: Any) -> dict[str, Tensor]:
        self.asked.append(arguments[0])
        return super().__call__(*arguments, **settings)


@mutant("matching-in-one-buffer", rejects="HM-28", operation="hungarian_matching", origin="a workspace of each shape")
class InOneBuffer(MatchingByHand):
    """Writes the costs of calls of one shape into one buffer, whichever thread they are of."""

    def __init__(self) -> None:
        self.buffers: dict[torch.Size, Tensor] = {}

    def repaired(self, cost: Tensor) -> Tensor:
        buffer = self.buffers.setdefault(cost.shape, torch.empty_like(cost))
        buffer.copy_(super().repaired(cost))
        time.sleep(1e-3)  # as while a kernel runs
        return buffer
