"""Right position embeddings, each written in another way than the reference."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from detr_conformance.evidence.registry import twin
from detr_conformance.topics.positions.mutants.embeddings import (
    BoxByHand,
    Embedded,
    LearnedByHand,
    LevelByHand,
    Maps,
    Padding,
    Positions,
    SineByHand,
    Wave,
    Waves,
    Waving,
)


class ComplexWaves(Waving):
    """Sine and cosine of a pair as the parts of one complex number."""

    def waves(self, position: Positions, wave: Wave) -> Waves:
        phase = self.phase(position, wave)[..., 0::2]
        return torch.view_as_real(torch.polar(torch.ones_like(phase), phase)).flip(-1).flatten(-2)


class ShiftedSines(Waving):
    """One sine for all channels: cos(p) = sin(p + pi / 2)."""

    def waves(self, position: Positions, wave: Wave) -> Waves:
        quarter = torch.tensor([0, math.pi / 2], dtype=position.dtype).repeat(wave.feats // 2)
        return (self.phase(position, wave) + quarter).sin()


class PowerWavelengths(Waving):
    """Division by powers of the temperature, as in the public code."""

    def phase(self, position: Positions, wave: Wave) -> Waves:
        return position.unsqueeze(-1) / wave.temperature ** self.exponent(wave).to(position.dtype)


@twin("sine-complex", operation="sine_position_embedding", origin="rotary embeddings")
class ComplexSine(ComplexWaves, SineByHand):
    """Takes sines and cosines as parts of complex numbers."""


@twin("sine-shifted", operation="sine_position_embedding", origin="cos(p) = sin(p + pi / 2)")
class ShiftedSine(ShiftedSines, SineByHand):
    """Makes all channels by one sine."""


@twin("sine-in-float64", operation="sine_position_embedding", origin="RT-DETR in transformers, compute_dtype")
class SineInFloat64(SineByHand):
    """Computes in float64 whatever the output is."""

    def wide(self, dtype: torch.dtype) -> torch.dtype:
        return torch.float64


@twin("sine-in-float32", operation="sine_position_embedding", origin="detrex: cumsum(dtype=torch.float32)")
class SineInFloat32(PowerWavelengths, SineByHand):
    """Computes in float32 whatever the output is."""

    def wide(self, dtype: torch.dtype) -> torch.dtype:
        return torch.float32


@twin("sine-triangular-counts", operation="sine_position_embedding", origin="a prefix sum as a matrix product")
class TriangularCounts(SineByHand):
    """Counts by a product with a triangle of ones, along the last axis of a transposed map for y."""

    def count(self, valid: Padding, axis: int, dtype: torch.dtype) -> Maps:
        along = valid.movedim(axis, -1).to(dtype)
        triangle = torch.ones(along.shape[-1], along.shape[-1], dtype=dtype).triu()
        return (along @ triangle).movedim(-1, axis)


@twin("sine-scaled-first", operation="sine_position_embedding", origin="one reciprocal a row, scaled beforehand")
class ScaledFirst(SineByHand):
    """Multiplies counts by 2 pi / (extent + 1e-6)."""

    def scaled(self, count: Maps, extent: Maps, wave: Wave) -> Maps:
        step = 2 * math.pi / (extent + 1e-6)
        return count * step + wave.offset * step


@twin("sine-image-by-image", operation="sine_position_embedding", origin="embeddings made in the data loader")
class ImageByImage(SineByHand):
    """Embeds one image after another."""

    def result(self, y: Waves, x: Waves, mask: Padding) -> Embedded:
        whole = super().result
        return torch.cat([whole(y[i : i + 1], x[i : i + 1], mask[i : i + 1]) for i in range(len(mask))])


@twin("box-complex", operation="box_position_embedding", origin="rotary embeddings")
class ComplexBox(ComplexWaves, BoxByHand):
    """Takes sines and cosines as parts of complex numbers."""


@twin("box-shifted", operation="box_position_embedding", origin="cos(p) = sin(p + pi / 2)")
class ShiftedBox(ShiftedSines, BoxByHand):
    """Makes all channels by one sine."""


@twin("box-outer-product", operation="box_position_embedding", origin="einsum of positions and frequencies")
class OuterProduct(BoxByHand):
    """Makes the phases of all coordinates by one outer product."""

    def phase(self, position: Positions, wave: Wave) -> Waves:
        wavelength = wave.temperature ** self.exponent(wave)
        return torch.einsum("...c,f->...cf", position, wavelength.reciprocal().to(position.dtype))


@twin("box-in-float64", operation="box_position_embedding", origin="double precision inside")
class BoxInFloat64(PowerWavelengths, BoxByHand):
    """Computes in float64 whatever the boxes are."""

    def wide(self, dtype: torch.dtype) -> torch.dtype:
        return torch.float64


@twin(
    "learned-one-hot",
    operation="learned_position_embedding",
    origin="lookup as a matrix product, for accelerators without gather",
)
class OneHot(LearnedByHand):
    """Multiplies one-hot rows by the tables."""

    def looked_up(self, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        found = []
        for index, table in ((rows, self.row_embed.weight), (columns, self.col_embed.weight)):
            found.append(F.one_hot(index, len(table)).to(table.dtype) @ table)
        row, column = found
        return row[:, None].expand(-1, len(columns), -1), column.expand(len(rows), -1, -1)


@twin("level-repeated", operation="level_position_embedding", origin="repeat_interleave")
class Repeated(LevelByHand):
    """Repeats each vector for the cells of its level."""

    def __call__(
        self,
        position_embedding: Float[Tensor, "batch cell embed"],
        spatial_shapes: Int[Tensor, "level 2"],
        level_embed: Float[Tensor, "level embed"],
    ) -> Float[Tensor, "batch cell embed"]:
        self.check(position_embedding, self.sizes(spatial_shapes), level_embed)
        return level_embed.repeat_interleave(spatial_shapes.prod(-1), 0)[None].add(position_embedding)


@twin("level-one-hot", operation="level_position_embedding", origin="lookup as a matrix product")
class LevelOneHot(LevelByHand):
    """Multiplies a matrix of cells and levels by the vectors."""

    def __call__(
        self,
        position_embedding: Float[Tensor, "batch cell embed"],
        spatial_shapes: Int[Tensor, "level 2"],
        level_embed: Float[Tensor, "level embed"],
    ) -> Float[Tensor, "batch cell embed"]:
        sizes = self.sizes(spatial_shapes)
        self.check(position_embedding, sizes, level_embed)
        level = torch.cat([torch.full((size,), index) for index, size in enumerate(sizes)])
        return position_embedding + F.one_hot(level, len(sizes)).to(level_embed.dtype) @ level_embed
