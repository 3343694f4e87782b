"""Reference points of encoder and decoder: closed forms, a plain loop, and the factor between levels."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from detr_reference.reference_points import decoder_reference_points, encoder_reference_points, valid_ratios

SHAPES = [(6, 4), (3, 50), (1, 2)]
CELLS = 6 * 4 + 3 * 50 + 1 * 2


def ratios(batch: int = 2) -> Tensor:
    return 0.3 + 0.7 * torch.rand(batch, len(SHAPES), 2, dtype=torch.float64)


@given(st.integers(1, 7), st.integers(1, 60), st.data())
def test_valid_ratios_count_the_image(height: int, width: int, data: st.DataObject) -> None:
    """(valid columns / W, valid rows / H) of each image, w first."""
    sizes = data.draw(st.lists(st.tuples(st.integers(1, height), st.integers(1, width)), min_size=1, max_size=3))
    mask = torch.ones(len(sizes), height, width, dtype=torch.bool)
    for image, (rows, columns) in enumerate(sizes):
        mask[image, :rows, :columns] = False
    expected = torch.tensor([(columns / width, rows / height) for rows, columns in sizes])
    torch.testing.assert_close(valid_ratios(mask), expected)


def test_encoder_references_equal_a_loop() -> None:
    """cell (i, j) of level l in level m: ((j + 0.5) / (vr_l * W_l) * vr_m, likewise y), rows first."""
    vr = ratios()
    points = encoder_reference_points(torch.tensor(SHAPES), vr)
    assert points.shape == (2, CELLS, 3, 2)
    for image in range(2):
        cell = 0
        for level, (height, width) in enumerate(SHAPES):
            for i in range(height):
                for j in range(width):
                    for other in range(3):
                        x = (j + 0.5) / (vr[image, level, 0] * width) * vr[image, other, 0]
                        y = (i + 0.5) / (vr[image, level, 1] * height) * vr[image, other, 1]
                        torch.testing.assert_close(points[image, cell, other], torch.stack((x, y)))
                    cell += 1


def test_encoder_references_without_padding_are_cell_centres() -> None:
    """With ratios of 1, a cell refers to its own centre, the same in every level."""
    points = encoder_reference_points(torch.tensor(SHAPES), torch.ones(1, 3, 2, dtype=torch.float64))
    assert torch.equal(points, points[:, :, :1].expand_as(points))
    torch.testing.assert_close(points[0, 0, 0], torch.tensor([0.5 / 4, 0.5 / 6], dtype=torch.float64))
    torch.testing.assert_close(points[0, 24 + 2 * 50 + 49, 0], torch.tensor([0.99, 2.5 / 3], dtype=torch.float64))
    torch.testing.assert_close(points[0, -1, 0], torch.tensor([0.75, 0.5], dtype=torch.float64))


def test_ratios_cancel_exactly_when_levels_agree() -> None:
    """Equal ratios on all levels leave no trace; where they differ, the factor vr_m / vr_l stays."""
    shapes = torch.tensor(SHAPES)
    plain = encoder_reference_points(shapes, torch.ones(2, 3, 2, dtype=torch.float64))
    equal = encoder_reference_points(shapes, ratios()[:, :1].expand(2, 3, 2))
    torch.testing.assert_close(equal, plain)
    vr = ratios()
    level = torch.tensor([0] * 24 + [1] * 150 + [2] * 2)
    factor = vr[:, None] / vr[:, level][:, :, None]
    torch.testing.assert_close(encoder_reference_points(shapes, vr), plain * factor)
    assert (factor - 1).abs().max() > 0.2


def test_a_cell_refers_to_its_own_centre_in_its_own_level() -> None:
    """In level m = l the ratio cancels, so that padding never moves a cell on its own map."""
    level = torch.tensor([0] * 24 + [1] * 150 + [2] * 2)
    own = [
        encoder_reference_points(torch.tensor(SHAPES), vr)[:, torch.arange(CELLS), level]
        for vr in (ratios(), torch.ones(2, 3, 2, dtype=torch.float64))
    ]
    torch.testing.assert_close(*own)


@pytest.mark.parametrize("coordinates", [2, 4])
def test_decoder_references_are_scaled_by_each_level(coordinates: int) -> None:
    """(x, y) * vr_l, and (w, h) by the same ratio."""
    reference, vr = torch.rand(2, 5, coordinates, dtype=torch.float64), ratios()
    points = decoder_reference_points(reference, vr)
    assert points.shape == (2, 5, 3, coordinates)
    for image in range(2):
        for query in range(5):
            for level in range(3):
                for axis in range(coordinates):
                    expected = reference[image, query, axis] * vr[image, level, axis % 2]
                    torch.testing.assert_close(points[image, query, level, axis], expected)


def test_gradient_reaches_decoder_references() -> None:
    """Decoder references are predicted: their gradient is the sum of the ratios over levels."""
    reference, vr = torch.rand(2, 5, 2, dtype=torch.float64, requires_grad=True), ratios()
    (grad,) = torch.autograd.grad(decoder_reference_points(reference, vr).sum(), reference)
    torch.testing.assert_close(grad, vr.sum(1)[:, None].expand_as(grad))


def test_an_empty_level_has_no_cells() -> None:
    """A level without cells adds none, but is a level to look into."""
    points = encoder_reference_points(torch.tensor([(2, 3), (0, 4)]), ratios()[:, :2])
    assert points.shape == (2, 6, 2, 2)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_dtype_is_that_of_the_ratios(dtype: torch.dtype) -> None:
    """References are computed and returned in the dtype of valid_ratios."""
    assert encoder_reference_points(torch.tensor(SHAPES), ratios().to(dtype)).dtype == dtype
