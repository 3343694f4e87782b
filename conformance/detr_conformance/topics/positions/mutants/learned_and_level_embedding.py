"""Mutants of the learned and the level embedding (POS-15, POS-24 to POS-32)."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.positions.mutants.embeddings import Embedded, LearnedByHand, LevelByHand, Padding

# -- learned --------------------------------------------------------------------------------------------------


@mutant(
    "learned-rows-before-columns",
    rejects="POS-24",
    operation="learned_position_embedding",
    origin="the order of the sine embedding",
)
class RowsBeforeColumns(LearnedByHand):
    """Puts the channels of the row first."""

    def joined(self, row: Tensor, column: Tensor) -> Tensor:
        return torch.cat((row, column), -1)


@mutant(
    "learned-tables-exchanged",
    rejects="POS-24",
    operation="learned_position_embedding",
    origin="row_embed(i), i from the width",
)
class TablesExchanged(LearnedByHand):
    """Looks columns up in the table of rows."""

    def looked_up(self, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        row, column = self.col_embed.weight[rows], self.row_embed.weight[columns]
        return row[:, None].expand(-1, len(columns), -1), column.expand(len(rows), -1, -1)


@mutant(
    "learned-from-one",
    rejects="POS-25",
    operation="learned_position_embedding",
    origin="nn.Embedding with a padding entry",
)
class FromOne(LearnedByHand):
    """Numbers rows and columns from one."""

    def entries(self, length: int, size: int) -> Int[Tensor, " index"]:
        return (torch.arange(length) + 1).clamp(max=size - 1)


@mutant(
    "learned-stretched",
    rejects="POS-25",
    operation="learned_position_embedding",
    origin="position embeddings interpolated as in ViT",
)
class Stretched(LearnedByHand):
    """Spreads the map over the whole table."""

    def entries(self, length: int, size: int) -> Int[Tensor, " index"]:
        return torch.arange(length) * size // length


@mutant(
    "learned-counts-valid-cells",
    rejects="POS-25",
    operation="learned_position_embedding",
    origin="the counts of the sine embedding",
)
class CountsValidCells(LearnedByHand):
    """Numbers the valid cells of each image."""

    def forward(self, mask: Padding) -> Embedded:
        super().forward(mask)
        row, column = ((~mask).cumsum(axis).sub(1).clamp(min=0) for axis in (1, 2))
        return torch.cat((self.col_embed(column), self.row_embed(row)), -1).movedim(-1, 1)


@mutant(
    "learned-clamped",
    rejects="POS-26",
    operation="learned_position_embedding",
    origin="an index error silenced by clamp",
)
class ClampedIndex(LearnedByHand):
    """Repeats the last entry beyond the table."""

    def check_size(self, height: int, width: int) -> None:
        pass

    def entries(self, length: int, size: int) -> Int[Tensor, " index"]:
        return torch.arange(length).clamp(max=size - 1)


@mutant(
    "learned-wrapped", rejects="POS-26", operation="learned_position_embedding", origin="an index error silenced by %"
)
class WrappedIndex(LearnedByHand):
    """Begins again at the first entry."""

    def check_size(self, height: int, width: int) -> None:
        pass

    def entries(self, length: int, size: int) -> Int[Tensor, " index"]:
        return torch.arange(length) % size


@mutant("learned-full-tables-refused", rejects="POS-26", operation="learned_position_embedding", origin=">= for >")
class FullTablesRefused(LearnedByHand):
    """Refuses a map of just the size of the tables."""

    def check_size(self, height: int, width: int) -> None:
        super().check_size(height + 1, width + 1)


@mutant(
    "learned-normal", rejects="POS-27", operation="learned_position_embedding", origin="the default of nn.Embedding"
)
class NormalTables(LearnedByHand):
    """Draws the tables from N(0, 1)."""

    def initialise(self, table: Tensor) -> None:
        table.normal_()


@mutant(
    "learned-small",
    rejects="POS-27",
    operation="learned_position_embedding",
    origin="_init_weights of transformers, std 0.02",
)
class SmallTables(LearnedByHand):
    """Draws the tables from a narrow normal distribution."""

    def initialise(self, table: Tensor) -> None:
        nn.init.trunc_normal_(table, std=0.02)


@mutant(
    "learned-xavier",
    rejects="POS-27",
    operation="learned_position_embedding",
    origin="a global Xavier loop that runs afterwards",
)
class XavierTables(LearnedByHand):
    """Draws the tables uniformly around zero."""

    def initialise(self, table: Tensor) -> None:
        nn.init.xavier_uniform_(table)


@mutant(
    "learned-rows-frozen",
    rejects="POS-28",
    operation="learned_position_embedding",
    origin="one table registered as a buffer",
)
class RowsFrozen(LearnedByHand):
    """Gives the rows no gradient."""

    def joined(self, row: Tensor, column: Tensor) -> Tensor:
        return super().joined(row.detach() + 0 * row, column)


@mutant(
    "learned-gradient-of-one-image",
    rejects="POS-28",
    operation="learned_position_embedding",
    origin="expand in a hand-written backward",
)
class GradientOfOneImage(LearnedByHand):
    """Lets the first image alone train the tables."""

    def batched(self, cells: Float[Tensor, "height width channel"], mask: Padding) -> Embedded:
        image = cells.movedim(-1, 0)
        return torch.stack([image, *[image.detach()] * (len(mask) - 1)])


@mutant("learned-any-mask", rejects="POS-15", operation="learned_position_embedding", origin="only the shape is read")
class AnyMask(LearnedByHand):
    """Accepts a mask of any dtype."""

    def forward(self, mask: Padding) -> Embedded:
        return super().forward(mask.bool())


# -- levels ---------------------------------------------------------------------------------------------------


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
