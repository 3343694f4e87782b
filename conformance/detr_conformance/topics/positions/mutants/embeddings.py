"""The four position embeddings, one overridable step after another.

They share only the configuration of the tables with the reference. Unchanged they are twins; the mutants and other
twins of chapter 8 override one step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from detr_conformance.evidence.registry import twin
from detr_reference.positions.config import LearnedPositionEmbeddingConfig

SINE, BOX = "sine_position_embedding", "box_position_embedding"
LEARNED, LEVEL = "learned_position_embedding", "level_position_embedding"

Maps = Float[Tensor, "batch height width"]
Padding = Bool[Tensor, "batch height width"]
Embedded = Float[Tensor, "batch channel height width"]
Positions = Float[Tensor, "*axes"]
Waves = Float[Tensor, "*axes channel"]


@dataclass(frozen=True)
class Wave:
    """The settings of one call."""

    feats: int = 128
    temperature: float = 10000.0
    offset: float = 0.0
    normalize: bool = True


class Waving:
    """What maps and boxes have in common: a position becomes channels."""

    def check_channels(self, feats: int) -> None:
        if feats % 2:
            raise ValueError(f"{feats} channels cannot be pairs of a sine and a cosine")

    def wide(self, dtype: torch.dtype) -> torch.dtype:
        return torch.float64 if dtype == torch.float64 else torch.float32

    def waves(self, position: Positions, wave: Wave) -> Waves:
        channels = position.new_empty(*position.shape, wave.feats)
        phase = self.phase(position, wave)
        channels[..., 0::2] = phase[..., 0::2].sin()
        channels[..., 1::2] = phase[..., 1::2].cos()
        return channels

    def phase(self, position: Positions, wave: Wave) -> Waves:
        frequency = torch.exp(-math.log(wave.temperature) * self.exponent(wave).to(position.dtype))
        return position[..., None] * frequency

    def exponent(self, wave: Wave) -> Float[Tensor, " channel"]:
        return (torch.arange(wave.feats) // 2).double() * 2 / wave.feats


@twin(
    "sine-by-hand",
    operation="sine_position_embedding",
    origin="frequencies as exponentials, as in Attention Is All You Need",
)
class SineByHand(Waving):
    """Multiplies counts by exponential frequencies and writes sines and cosines into their channels."""

    def __call__(
        self,
        mask: Padding,
        *,
        num_pos_feats: int = 128,
        temperature: float = 10000.0,
        offset: float = 0.0,
        normalize: bool = True,
        dtype: torch.dtype = torch.float32,
    ) -> Embedded:
        self.check_mask(mask)
        self.check_channels(num_pos_feats)
        wave = Wave(num_pos_feats, temperature, offset, normalize)
        valid, wide = self.valid(mask), self.wide(dtype)
        y, x = (self.position(valid, axis, wave, wide) for axis in (1, 2))
        return self.result(self.waves(y, wave), self.waves(x, wave), mask).to(dtype)

    def check_mask(self, mask: Padding) -> None:
        if mask.dtype != torch.bool:
            raise TypeError(f"a mask of {mask.dtype}")

    def valid(self, mask: Padding) -> Padding:
        return mask.logical_not()

    def position(self, valid: Padding, axis: int, wave: Wave, dtype: torch.dtype) -> Maps:
        count = self.count(valid, axis, dtype)
        if not wave.normalize:
            return self.bare(count, wave)
        return self.scaled(count, self.extent(valid, axis, dtype), wave)

    def count(self, valid: Padding, axis: int, dtype: torch.dtype) -> Maps:
        return valid.long().cumsum(axis).to(dtype)

    def extent(self, valid: Padding, axis: int, dtype: torch.dtype) -> Maps:
        return valid.sum(axis, keepdim=True).to(dtype)

    def bare(self, count: Maps, wave: Wave) -> Maps:
        return count

    def scaled(self, count: Maps, extent: Maps, wave: Wave) -> Maps:
        return (count + wave.offset) / (extent + 1e-6) * (2 * math.pi)

    def result(self, y: Waves, x: Waves, mask: Padding) -> Embedded:
        return torch.cat((y.movedim(-1, 1), x.movedim(-1, 1)), 1)


@twin("box-by-hand", operation="box_position_embedding", origin="one phase tensor for all coordinates")
class BoxByHand(Waving):
    """Puts the coordinates into their order first and makes all channels at once."""

    def __call__(
        self,
        boxes: Float[Tensor, "*query coordinate"],
        *,
        num_pos_feats: int = 128,
        temperature: float = 10000.0,
    ) -> Float[Tensor, "*query channel"]:
        self.check_boxes(boxes)
        self.check_channels(num_pos_feats)
        wave = Wave(num_pos_feats, temperature)
        ordered = self.ordered(self.scaled(self.coordinates(boxes)))
        return self.result(self.waves(ordered, wave)).to(boxes.dtype)

    def check_boxes(self, boxes: Tensor) -> None:
        if boxes.shape[-1] not in (2, 4):
            raise ValueError(f"{boxes.shape[-1]} coordinates")

    def coordinates(self, boxes: Tensor) -> Tensor:
        return boxes.to(self.wide(boxes.dtype))

    def scaled(self, boxes: Tensor) -> Tensor:
        return boxes * (2 * math.pi)

    def ordered(self, boxes: Tensor) -> Tensor:
        return torch.cat((boxes[..., 1:2], boxes[..., 0:1], boxes[..., 2:]), -1)

    def result(self, waves: Float[Tensor, "*query coordinate channel"]) -> Tensor:
        return waves.flatten(-2)


@twin(
    "learned-by-hand",
    operation="learned_position_embedding",
    origin="facebookresearch/detr, models/position_encoding.py",
)
class LearnedByHand(nn.Module):
    """Looks the entries up by index and repeats them along the other axis."""

    def __init__(self, config: LearnedPositionEmbeddingConfig, state_dict: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        self.config = config
        self.row_embed = nn.Embedding(config.num_rows, config.num_pos_feats)
        self.col_embed = nn.Embedding(config.num_columns, config.num_pos_feats)
        with torch.no_grad():
            for table in (self.row_embed.weight, self.col_embed.weight):
                self.initialise(table)
        if state_dict is not None:
            self.to(next(iter(state_dict.values())).dtype)
            self.load_state_dict(state_dict)

    def initialise(self, table: Tensor) -> None:
        table.copy_(torch.rand_like(table))

    def forward(self, mask: Padding) -> Embedded:
        if mask.dtype != torch.bool:
            raise TypeError(f"a mask of {mask.dtype}")
        self.check_size(*mask.shape[1:])
        rows = self.entries(mask.shape[1], self.config.num_rows)
        columns = self.entries(mask.shape[2], self.config.num_columns)
        return self.batched(self.joined(*self.looked_up(rows, columns)), mask)

    def check_size(self, height: int, width: int) -> None:
        if height > self.config.num_rows or width > self.config.num_columns:
            raise ValueError(f"a map of {height} x {width} is larger than the tables")

    def entries(self, length: int, size: int) -> Int[Tensor, " index"]:
        return torch.arange(length)

    def looked_up(self, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """Row and column of every cell, each (height, width, channel)."""
        row, column = F.embedding(rows, self.row_embed.weight), F.embedding(columns, self.col_embed.weight)
        return row.unsqueeze(1).repeat(1, len(columns), 1), column.repeat(len(rows), 1, 1)

    def joined(self, row: Tensor, column: Tensor) -> Tensor:
        return torch.cat((column, row), -1)

    def batched(self, cells: Float[Tensor, "height width channel"], mask: Padding) -> Embedded:
        return torch.stack([cells.movedim(-1, 0)] * mask.shape[0])


@twin(
    "level-by-hand",
    operation="level_position_embedding",
    origin="fundamentalvision/Deformable-DETR, models/deformable_transformer.py",
)
class LevelByHand:
    """Cuts the cells into levels, adds a vector to each and joins them again."""

    def __call__(
        self,
        position_embedding: Float[Tensor, "batch cell embed"],
        spatial_shapes: Int[Tensor, "level 2"],
        level_embed: Float[Tensor, "level embed"],
    ) -> Float[Tensor, "batch cell embed"]:
        sizes = self.sizes(spatial_shapes)
        self.check(position_embedding, sizes, level_embed)
        maps = position_embedding.split(sizes, 1)
        vectors = self.vectors(level_embed)
        return torch.cat([self.added(*pair) for pair in zip(maps, vectors, strict=False)], 1)

    def sizes(self, spatial_shapes: Int[Tensor, "level 2"]) -> list[int]:
        return [height * width for height, width in spatial_shapes.tolist()]

    def check(self, cells: Tensor, sizes: list[int], level_embed: Tensor) -> None:
        if sum(sizes) != cells.shape[1] or len(sizes) != len(level_embed):
            raise ValueError(f"levels of {sizes} cells, {cells.shape[1]} cells and {len(level_embed)} vectors")

    def vectors(self, level_embed: Float[Tensor, "level embed"]) -> list[Float[Tensor, " embed"]]:
        return list(level_embed)

    def added(self, cells: Float[Tensor, "batch cell embed"], vector: Float[Tensor, " embed"]) -> Tensor:
        return cells + vector
