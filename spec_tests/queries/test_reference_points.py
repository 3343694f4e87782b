"""Reference points of encoder and decoder: closed forms, a plain loop, and the factor between levels."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from detr_reference.features.valid_ratios import valid_ratios
from detr_reference.queries.reference_points import decoder_reference_points, encoder_reference_points
from helpers.oracles.scalar_selection import ratio

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


@given(st.integers(1, 5), st.integers(1, 7), st.integers(0, 2**16))
def test_valid_ratios_count_along_the_first_row_and_column(height: int, width: int, seed: int) -> None:
    """Whatever other rows and columns hold."""
    mask = torch.rand(2, height, width, generator=torch.Generator().manual_seed(seed)) < 0.5
    mask[:, 0, 0] = False
    expected = torch.tensor([[float(axis) for axis in ratio(image)] for image in mask.tolist()], dtype=torch.float64)
    assert torch.equal(valid_ratios(mask, dtype=torch.float64), expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_valid_ratios_in_the_dtype_asked_for(dtype: torch.dtype) -> None:
    """Rounded once: 2301 is no float16, and 301 no bfloat16."""
    mask = torch.ones(2, 3, 2303, dtype=torch.bool)
    mask[0, :2, :2301], mask[1, :1, :301] = False, False
    expected = torch.tensor([(2301 / 2303, 2 / 3), (301 / 2303, 1 / 3)], dtype=torch.float64)
    found = valid_ratios(mask, dtype=dtype)
    assert found.dtype == dtype
    assert torch.equal(found, expected.to(dtype))


def test_valid_ratios_are_float32_whatever_the_default() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        assert valid_ratios(torch.zeros(1, 2, 3, dtype=torch.bool)).dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


def test_references_are_independent_of_padding() -> None:
    """Relative to the image, a cell's reference is what it is without padding, in its own and in all other levels."""
    sizes, padded = [(4, 6), (2, 3)], [(8, 8), (4, 4)]
    masks = [torch.ones(1, *shape, dtype=torch.bool) for shape in padded]
    for mask, (rows, columns) in zip(masks, sizes, strict=True):
        mask[:, :rows, :columns] = False
    vr = torch.stack([valid_ratios(mask, dtype=torch.float64) for mask in masks], 1)
    alone = encoder_reference_points(torch.tensor(sizes), torch.ones(1, 2, 2, dtype=torch.float64))
    points = encoder_reference_points(torch.tensor(padded), vr) / vr[:, None]
    own = torch.cat([~mask.flatten(1) for mask in masks], 1)[0]
    torch.testing.assert_close(points[:, own], alone)


def test_levels_disagree_about_the_border() -> None:
    """303 of 480 columns, in masks shrunk to strides of 8 to 64."""
    mask = torch.ones(1, 1, 1, 480)
    mask[..., :303] = 0
    levels = [
        torch.nn.functional.interpolate(mask, size=(1, -(-480 // stride)))[0].bool() for stride in (8, 16, 32, 64)
    ]
    widths = [round(valid_ratios(level)[0, 0].item(), 3) for level in levels]
    assert widths == [0.633, 0.633, 0.667, 0.75]


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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_is_the_rounded_float32(dtype: torch.dtype) -> None:
    """Half-precision ratios are taken to float32 before anything else."""
    vr, shapes = ratios().to(dtype), torch.tensor(SHAPES)
    assert torch.equal(encoder_reference_points(shapes, vr), encoder_reference_points(shapes, vr.float()).to(dtype))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_dtype_is_that_of_the_ratios(dtype: torch.dtype) -> None:
    """References are computed and returned in the dtype of valid_ratios."""
    assert encoder_reference_points(torch.tensor(SHAPES), ratios().to(dtype)).dtype == dtype
