"""Mutants of the encoder's reference points (SEL-8 to SEL-15)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.queries.mutants.references import Points, Ratios, ReferencesByHand


@mutant("references-borders", rejects="SEL-8", operation="encoder_reference_points", origin="arange without 0.5")
class Borders(ReferencesByHand):
    """Refers to the upper left corner of a cell."""

    def places(self, length: int, dtype: torch.dtype) -> Float[Tensor, " length"]:
        return torch.arange(length, dtype=dtype)


@mutant("references-end-to-end", rejects="SEL-8", operation="encoder_reference_points", origin="linspace(0, 1, W)")
class EndToEnd(ReferencesByHand):
    """Spreads the cells from one border to the other."""

    def places(self, length: int, dtype: torch.dtype) -> Float[Tensor, " length"]:
        return torch.linspace(0, length, length, dtype=dtype)


@mutant("references-on-the-map", rejects="SEL-9", operation="encoder_reference_points", origin="ratios applied once")
class OnTheMap(ReferencesByHand):
    """Takes centres on the padded map for centres on the image."""

    def valid_size(self, ratio: Float[Tensor, "batch 2"], size: tuple[int, int]) -> Float[Tensor, "batch 2"]:
        return super().valid_size(torch.ones_like(ratio), size)


@mutant("references-ratio-axes", rejects="SEL-9", operation="encoder_reference_points", origin="ratios as (h, w)")
class RatioAxes(ReferencesByHand):
    """Divides x by the ratio of the height and y by that of the width."""

    def valid_size(self, ratio: Float[Tensor, "batch 2"], size: tuple[int, int]) -> Float[Tensor, "batch 2"]:
        return super().valid_size(ratio.flip(-1), size)


@mutant(
    "references-the-same-in-all-levels",
    rejects="SEL-10",
    operation="encoder_reference_points",
    origin="Deformable-DETR issue 36: ratios cancel",
)
class TheSameInAllLevels(ReferencesByHand):
    """Refers to the centre on the own padded map in every level."""

    def seen(self, points: Points, ratios: Ratios, sizes: list[tuple[int, int]]) -> Float[Tensor, "b s l 2"]:
        cells = [height * width for height, width in sizes]
        own = torch.cat([ratios[:, level, None].expand(-1, count, 2) for level, count in enumerate(cells)], 1)
        return (points * own).unsqueeze(2).expand(-1, -1, len(sizes), -1)


@mutant(
    "references-first-level-for-all",
    rejects="SEL-10",
    operation="encoder_reference_points",
    origin="valid_ratios[:, 0], which DINO uses for its embedding",
)
class FirstLevelForAll(ReferencesByHand):
    """Multiplies by the ratio of level 0 in every level."""

    def seen(self, points: Points, ratios: Ratios, sizes: list[tuple[int, int]]) -> Float[Tensor, "b s l 2"]:
        return super().seen(points, ratios[:, :1].expand_as(ratios), sizes)


@mutant("references-y-before-x", rejects="SEL-11", operation="encoder_reference_points", origin="meshgrid, ij")
class YBeforeX(ReferencesByHand):
    """Exchanges the two numbers at the end."""

    def seen(self, points: Points, ratios: Ratios, sizes: list[tuple[int, int]]) -> Float[Tensor, "b s l 2"]:
        return super().seen(points, ratios, sizes).flip(-1)


@mutant("references-column-by-column", rejects="SEL-12", operation="encoder_reference_points", origin="meshgrid, xy")
class ColumnByColumn(ReferencesByHand):
    """Lays cells column by column."""

    def flattened(self, cells: Float[Tensor, "height width 2"]) -> Float[Tensor, "cell 2"]:
        return cells.transpose(0, 1).reshape(-1, 2)


@mutant("references-empty-level-dropped", rejects="SEL-12", operation="encoder_reference_points", origin="if not cells")
class EmptyLevelDropped(ReferencesByHand):
    """Does not look into levels without cells."""

    def seen(self, points: Points, ratios: Ratios, sizes: list[tuple[int, int]]) -> Float[Tensor, "b s l 2"]:
        kept = [level for level, (height, width) in enumerate(sizes) if height * width]
        return super().seen(points, ratios[:, kept], sizes)


@mutant(
    "references-clamped", rejects="SEL-13", operation="encoder_reference_points", origin="references kept in [0, 1]"
)
class Clamped(ReferencesByHand):
    """Moves cells of padding to the border of the image."""

    def seen(self, points: Points, ratios: Ratios, sizes: list[tuple[int, int]]) -> Float[Tensor, "b s l 2"]:
        return super().seen(points.clamp(max=1), ratios, sizes)


@mutant(
    "references-in-half",
    rejects="SEL-14",
    operation="encoder_reference_points",
    origin="transformers, get_reference_points: linspace in the dtype of the ratios",
)
class InHalf(ReferencesByHand):
    """Computes in the dtype of the ratios."""

    def arithmetic(self, dtype: torch.dtype) -> torch.dtype:
        return dtype


@mutant("references-levels-zipped", rejects="SEL-15", operation="encoder_reference_points", origin="zip without strict")
class LevelsZipped(ReferencesByHand):
    """Takes as many levels as both have."""

    def __call__(self, spatial_shapes: Tensor, valid_ratios: Ratios) -> Float[Tensor, "b s l 2"]:
        levels = min(len(spatial_shapes), valid_ratios.shape[1])
        return super().__call__(spatial_shapes[:levels], valid_ratios[:, :levels])
