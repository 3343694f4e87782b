"""Mutants of the embedding of levels (POS-29 to POS-32)."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.positions.mutants.embeddings import LevelByHand


@mutant(
    "level-missing",
    rejects="POS-29",
    operation="level_position_embedding",
    origin="single-scale code on several levels",
)
class LevelMissing(LevelByHand):
    """Adds nothing."""

    def added(self, cells: Tensor, vector: Tensor) -> Tensor:
        return cells + 0 * vector


@mutant(
    "level-order-reversed",
    rejects="POS-29",
    operation="level_position_embedding",
    origin="pyramids listed from the coarsest level",
)
class OrderReversed(LevelByHand):
    """Gives the first level the last vector."""

    def vectors(self, level_embed: Tensor) -> list[Tensor]:
        return list(level_embed.flip(0))


@mutant("level-previous", rejects="POS-29", operation="level_position_embedding", origin="levels numbered from 1")
class PreviousLevel(LevelByHand):
    """Gives each level the vector of the one before it."""

    def vectors(self, level_embed: Tensor) -> list[Tensor]:
        return list(level_embed.roll(1, 0))


@mutant("level-as-a-factor", rejects="POS-29", operation="level_position_embedding", origin="a scale for each level")
class LevelAsAFactor(LevelByHand):
    """Multiplies."""

    def added(self, cells: Tensor, vector: Tensor) -> Tensor:
        return cells * vector


@mutant(
    "level-of-the-first-image", rejects="POS-29", operation="level_position_embedding", origin="pos[0] += level_embed"
)
class FirstImageOnly(LevelByHand):
    """Leaves the other images without level."""

    def added(self, cells: Tensor, vector: Tensor) -> Tensor:
        return torch.cat((cells[:1] + vector, cells[1:]))


@mutant(
    "level-added-in-bfloat16",
    rejects="POS-29",
    operation="level_position_embedding",
    origin="parameters kept in bfloat16",
)
class AddedInBfloat16(LevelByHand):
    """Rounds the vectors to bfloat16."""

    def added(self, cells: Tensor, vector: Tensor) -> Tensor:
        return cells + vector.bfloat16().to(cells.dtype)


@mutant("level-equal-parts", rejects="POS-30", operation="level_position_embedding", origin="chunk(L)")
class EqualParts(LevelByHand):
    """Gives every level as many cells."""

    def __call__(self, position_embedding: Tensor, spatial_shapes: Tensor, level_embed: Tensor) -> Tensor:
        super().__call__(position_embedding, spatial_shapes, level_embed)
        cells, levels = position_embedding.shape[1], len(level_embed)
        return position_embedding + level_embed[torch.arange(cells) * levels // cells]


@mutant(
    "level-boundary-late",
    rejects="POS-30",
    operation="level_position_embedding",
    origin="searchsorted without right=True",
)
class BoundaryLate(LevelByHand):
    """Counts the first cell of a level to the one before it."""

    def __call__(self, position_embedding: Tensor, spatial_shapes: Tensor, level_embed: Tensor) -> Tensor:
        super().__call__(position_embedding, spatial_shapes, level_embed)
        ends = spatial_shapes.prod(-1).cumsum(0)
        return position_embedding + level_embed[torch.searchsorted(ends, torch.arange(position_embedding.shape[1]))]


@mutant(
    "level-sorted-by-size", rejects="POS-30", operation="level_position_embedding", origin="levels assumed to shrink"
)
class SortedBySize(LevelByHand):
    """Takes the first level for the largest."""

    def sizes(self, spatial_shapes: Int[Tensor, "level 2"]) -> list[int]:
        return sorted(super().sizes(spatial_shapes), reverse=True)


@mutant(
    "level-sum-unchecked",
    rejects="POS-31",
    operation="level_position_embedding",
    origin="index clamped to the last level",
)
class SumUnchecked(LevelByHand):
    """Counts cells beyond the levels to the last one."""

    def check(self, cells: Tensor, sizes: list[int], level_embed: Tensor) -> None:
        pass

    def __call__(self, position_embedding: Tensor, spatial_shapes: Tensor, level_embed: Tensor) -> Tensor:
        ends = spatial_shapes.prod(-1).cumsum(0)
        level = torch.searchsorted(ends, torch.arange(position_embedding.shape[1]), right=True)
        return position_embedding + level_embed[level.clamp(max=len(level_embed) - 1)]


@mutant("level-vectors-left-over", rejects="POS-31", operation="level_position_embedding", origin="zip without strict")
class VectorsLeftOver(LevelByHand):
    """Does not count the vectors."""

    def check(self, cells: Tensor, sizes: list[int], level_embed: Tensor) -> None:
        super().check(cells, sizes, level_embed[: len(sizes)])


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, cells: Tensor, vector: Tensor) -> Tensor:
        return cells + vector

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (gradient,) = gradients
        return gradient, gradient.sum((0, 1)) / max(gradient.shape[1], 1)


@mutant(
    "level-gradient-averaged",
    rejects="POS-32",
    operation="level_position_embedding",
    origin="a mean in a hand-written backward",
)
class GradientAveraged(LevelByHand):
    """Divides the gradient of a level by its cells."""

    def added(self, cells: Tensor, vector: Tensor) -> Tensor:
        return _Mean.apply(cells, vector)


@mutant("level-detached", rejects="POS-32", operation="level_position_embedding", origin="level_embed.data")
class LevelDetached(LevelByHand):
    """Gives the vectors no gradient."""

    def vectors(self, level_embed: Tensor) -> list[Tensor]:
        return list(level_embed.detach() + 0 * level_embed)
