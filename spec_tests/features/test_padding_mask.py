"""Masks of feature maps: the nearest pixel decides."""

from __future__ import annotations

import pytest
import torch

from detr_reference.features.padding_mask import resize_padding_mask


def test_the_nearest_pixel_decides() -> None:
    """Pixel (floor(i H / h), floor(j W / w)), also where the map does not divide the image."""
    mask = torch.rand(2, 11, 14) < 0.5
    found = resize_padding_mask(mask, (4, 5))
    rows, columns = [i * 11 // 4 for i in range(4)], [j * 14 // 5 for j in range(5)]
    assert torch.equal(found, mask[:, rows][:, :, columns])
    assert found.dtype == torch.bool


def test_a_cell_on_the_border_belongs_to_the_image() -> None:
    """65 pixels are 2.03 cells of 32 pixels: three cells, as many as the backbone makes of 65 pixels alone."""
    mask = torch.ones(1, 96, 160, dtype=torch.bool)
    mask[:, :65, :33] = False
    found = resize_padding_mask(mask, (3, 5))
    assert found[0].tolist() == [[False, False, True, True, True]] * 3


def test_an_image_is_never_lost() -> None:
    mask = torch.ones(1, 96, 160, dtype=torch.bool)
    mask[:, 0, 0] = False
    assert not resize_padding_mask(mask, (2, 3))[0, 0, 0]


@pytest.mark.usefixtures("unchecked_shapes")
def test_wrong_masks_are_refused() -> None:
    with pytest.raises(TypeError, match=r"mask must be bool \(True is padding\), got torch.float32"):
        resize_padding_mask(torch.zeros(2, 4, 4), (2, 2))
    with pytest.raises(ValueError, match=r"mask must be \(batch, height, width\), got \(4, 4\)"):
        resize_padding_mask(torch.zeros(4, 4, dtype=torch.bool), (2, 2))
