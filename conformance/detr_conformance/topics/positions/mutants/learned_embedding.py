"""Mutants of the learned embedding of maps (POS-15, POS-24 to POS-28)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.positions.mutants.embeddings import Embedded, LearnedByHand, Padding


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
