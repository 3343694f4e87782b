"""Two-stage models select cells as queries: which ones a target selected, and whether rounding alone explains it.

Cells whose scores are as close as roundings may exchange their places. From then on each query is another one, so that
the reference runs again with the target's selection, and what comes behind is judged by that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from unittest.mock import patch

import torch
from torch import Tensor

from detr_conformance.stages import pattern_of
from detr_conformance.staging.expectations import Expected
from detr_conformance.staging.judging import Stage
from detr_reference.detectors import deformable_detr, dino
from detr_reference.queries.query_selection import select_queries

SELECTING = {"deformable_detr": deformable_detr, "dino": dino}
SELECTION, SCORES = "selection", "class_head.{i}"
BEHIND_THE_SELECTION = ("query_", "decoder")
SCORED_BY_THE_FIRST = ("deformable_detr",)  # class channel, the others by the best
OF_A_CELL = 1e-3  # how far a box may lie from that of its cell
SHOWN = 3  # places that a message names


@dataclass(frozen=True)
class Candidates:
    """What the reference selects from, in one call.

    Attributes:
        scores: (batch, cell).
        boxes: (batch, cell, 4), after the sigmoid.
        indices: (batch, query), the best cells, best first.
    """

    scores: Tensor
    boxes: Tensor
    indices: Tensor

    def at(self, indices: Tensor) -> Tensor:
        """The scores of these cells."""
        return self.scores.gather(1, indices)


@contextmanager
def selecting(operation: str, seen: list[Candidates], indices: Tensor | None = None) -> Iterator[None]:
    """While the reference runs: notes what it selects from, and lets it take these cells instead of the best."""
    module = SELECTING.get(operation)
    if module is None:
        yield
        return
    with patch.object(module, "select_queries", _watched(select_queries, seen, indices)):
        yield


def _watched(
    actual: Callable[..., dict[str, Tensor]], seen: list[Candidates], indices: Tensor | None
) -> Callable[..., dict[str, Tensor]]:
    def select(logits: Tensor, proposals: Tensor, memory: Tensor, *, num_queries: int, score: str) -> dict[str, Tensor]:
        found = actual(logits, proposals, memory, num_queries=num_queries, score=score)
        scores = logits.amax(-1) if score == "max" else logits[..., 0]
        seen.append(Candidates(scores.detach(), proposals.detach().sigmoid(), found["indices"]))
        if indices is None:
            return found
        return {"indices": indices, "proposals": _rows(proposals, indices), "memory": _rows(memory, indices)}

    return select


def _rows(tensor: Tensor, indices: Tensor) -> Tensor:
    return tensor.gather(1, indices[..., None].expand(-1, -1, tensor.shape[-1]))


def selected_by_the_target(candidates: Candidates, boxes: Tensor, unit: float) -> Tensor | None:
    """(batch, query): the cell that each of the target's boxes is of; of cells with the same box the likeliest.

    None where some box is of no cell: then something went wrong before anything was selected.

    Args:
        boxes: (batch, query, 4), as the target selected them.
        unit: round-off of the target's dtype.
    """
    chosen = []
    best = candidates.at(candidates.indices)
    for image, own in enumerate(boxes):
        far = torch.cdist(own, candidates.boxes[image], p=math.inf)
        nearest = far.amin(-1, keepdim=True)
        if float(nearest.max()) > max(OF_A_CELL, 64 * unit):
            return None
        as_near = far <= nearest + 4 * unit
        behind = (best[image][:, None] - candidates.scores[image]).abs()
        behind.scatter_(1, candidates.indices[image][:, None], -1.0)  # the cell itself, if it is one of them
        chosen.append(behind.masked_fill_(~as_near, math.inf).argmin(-1))
    return torch.stack(chosen)


def judged_selection(candidates: Candidates, indices: Tensor, limits: Tensor) -> Stage:
    """Whether each place of the order holds a cell whose score is, but for rounding, the score of that place.

    Args:
        candidates: of the reference by itself.
        indices: the target's.
        limits: (batch, cell), how far a score may be off.
    """
    right = candidates.indices
    off = (candidates.at(indices) - candidates.at(right)).abs()
    limit = limits.gather(1, indices) + limits.gather(1, right)
    ratio = torch.where(indices == right, 0.0, off / limit)
    worst = int(ratio.argmax())
    numbers = (float(off.flatten()[worst]), float(limit.flatten()[worst]))
    moved = int((indices != right).sum())
    if float(ratio.max()) > 1:
        image, place = divmod(worst, right.shape[1])
        said = (
            f"of {moved} places that hold other cells, {int((ratio > 1).sum())} for no rounding's sake: "
            f"place {place} of image {image} has cell {int(indices[image, place])}, whose score is "
            f"{float(candidates.scores[image, indices[image, place]]):.6g}, instead of "
            f"{float(candidates.scores[image, right[image, place]]):.6g}"
        )
        return Stage(SELECTION, float(ratio.max()), said, *numbers)
    return Stage(SELECTION, float(ratio.max()), exchanged(indices, right), *numbers)


def scores_of_cells(operation: str, expected: Expected, cells: torch.Size) -> Tensor:
    """(batch, cell): how far the score of each cell may be off; its head is the last of the class heads."""
    heads = {int(name.rpartition(".")[2]): right for name, right, _ in expected if pattern_of(name) == SCORES}
    limits = heads[max(heads)].limit.view(*cells, -1)
    return limits[..., 0] if operation in SCORED_BY_THE_FIRST else limits.amax(-1)


def exchanged(indices: Tensor, right: Tensor) -> str | None:
    """Which places hold other cells, as rounding may have it; None if none does."""
    places = (indices != right).nonzero()[:, -1].tolist()
    if not places:
        return None
    more = f" and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
    listed = ", ".join(map(str, places[:SHOWN])) + more
    return f"places {listed} hold cells whose scores are equal but for rounding"


def boxes_of(numbers: Mapping[str, list[Tensor]], outputs: Mapping[str, Tensor], indices: Tensor) -> Tensor | None:
    """The boxes that the target selected: its stage of that name, or those of its first stage, if it tells them."""
    shape = (*indices.shape, 4)
    own = numbers[SELECTION][0] if SELECTION in numbers else outputs.get("enc_boxes")
    if own is None or own.numel() != math.prod(shape):
        return None
    return own.detach().double().cpu().reshape(shape)
