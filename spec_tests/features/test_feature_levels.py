"""Maps as one sequence of cells: order, positions, padding, valid ratios."""

from __future__ import annotations

import pytest
import torch

from detr_reference.features.feature_levels import flatten_levels
from detr_reference.positions.sine_position_embedding import sine_position_embedding

SIZES = ((5, 7), (3, 4), (2, 2))


def test_cells_of_all_levels() -> None:
    maps = [torch.randn(2, 8, *size, dtype=torch.float64) for size in SIZES]
    mask = torch.zeros(2, 40, 56, dtype=torch.bool)
    mask[0, 27:] = True
    mask[1, :, 41:] = True
    embeds = torch.randn(3, 8, dtype=torch.float64)
    levels = flatten_levels(maps, mask, embeds, temperature=20.0, offset=-0.5)

    assert levels.spatial_shapes.tolist() == [list(size) for size in SIZES]
    assert levels.sizes == SIZES
    assert levels.level_start_index.tolist() == [0, 35, 47]
    for level, (start, (height, width)) in enumerate(zip((0, 35, 47), SIZES, strict=True)):
        padding = mask[:, (torch.arange(height) * 40 // height)][:, :, torch.arange(width) * 56 // width]
        sines = sine_position_embedding(padding, num_pos_feats=4, temperature=20.0, offset=-0.5, dtype=torch.float64)
        for row in range(height):
            for column in range(width):
                token = start + row * width + column
                assert torch.equal(levels.features[:, token], maps[level][:, :, row, column])
                assert torch.equal(levels.padding[:, token], padding[:, row, column])
                assert torch.equal(levels.positions[:, token], sines[:, :, row, column] + embeds[level])
        valid = (~padding).double()
        ratio = torch.stack((valid[:, 0].mean(1), valid[:, :, 0].mean(1)), -1)
        torch.testing.assert_close(levels.valid_ratios[:, level], ratio, rtol=0, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_ratios_are_wide(dtype: torch.dtype) -> None:
    """Coordinates are float32 or better, whatever the dtype of the features."""
    maps = [torch.randn(1, 8, *size).to(dtype) for size in SIZES]
    mask = torch.zeros(1, 40, 56, dtype=torch.bool)
    levels = flatten_levels(maps, mask, torch.randn(3, 8).to(dtype), temperature=20.0, offset=0.0)
    assert levels.valid_ratios.dtype == torch.float32
    assert levels.features.dtype == levels.positions.dtype == dtype


def test_an_image_of_padding_alone() -> None:
    maps = [torch.randn(2, 8, *size) for size in SIZES]
    mask = torch.zeros(2, 40, 56, dtype=torch.bool)
    mask[1] = True
    with pytest.raises(ValueError, match="marks the whole first row or column of image 1 as padding"):
        flatten_levels(maps, mask, torch.randn(3, 8), temperature=20.0, offset=0.0)
