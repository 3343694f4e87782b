"""The sine embedding against a scalar oracle, closed forms, what padding must not change, and errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from detr_reference.positions.sine_position_embedding import sine_position_embedding


def rectangles(height: int, width: int, *extents: tuple[int, int]) -> Tensor:
    """A mask of images of these (valid rows, valid columns) in the upper left corner; True = padding."""
    mask = torch.ones(len(extents), height, width, dtype=torch.bool)
    for image, (rows, columns) in zip(mask, extents, strict=True):
        image[:rows, :columns] = False
    return mask


def oracle(mask: Tensor, num_pos_feats: int, temperature: float, offset: float, normalize: bool) -> NDArray[np.float64]:
    """One cell and channel at a time, with Python's integers and complex exponentials."""
    batch, height, width = mask.shape
    padding = mask.tolist()
    result = np.zeros((batch, 2 * num_pos_feats, height, width))
    for b, i, j in np.ndindex(batch, height, width):
        column = [not padding[b][row][j] for row in range(height)]
        row = [not padding[b][i][column] for column in range(width)]
        for axis, (valid, at) in enumerate(((column, i), (row, j))):
            position: float = sum(valid[: at + 1])
            if normalize:
                position = (position + offset) * 2 * math.pi / (sum(valid) + 1e-6)
            for k in range(num_pos_feats // 2):
                wave = np.exp(1j * position / math.exp(2 * k / num_pos_feats * math.log(temperature)))
                channel = axis * num_pos_feats + 2 * k
                result[b, channel : channel + 2, i, j] = wave.imag, wave.real
    return result


@st.composite
def masks(draw: st.DrawFn) -> Tensor:
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    return torch.rand(shape, generator=generator) < draw(st.sampled_from((0.0, 0.3, 0.7, 1.0)))


@given(
    mask=masks(),
    num_pos_feats=st.sampled_from((2, 6, 10)),
    temperature=st.sampled_from((20.0, 10000.0)),
    offset=st.sampled_from((0.0, -0.5, 0.25)),
    normalize=st.booleans(),
)
def test_scalar_oracle(mask: Tensor, num_pos_feats: int, temperature: float, offset: float, normalize: bool) -> None:
    output = sine_position_embedding(
        mask,
        num_pos_feats=num_pos_feats,
        temperature=temperature,
        offset=offset,
        normalize=normalize,
        dtype=torch.float64,
    )
    expected = oracle(mask, num_pos_feats, temperature, offset, normalize)
    np.testing.assert_allclose(output.numpy(), expected, rtol=0, atol=1e-8)  # -3e6 costs 7 digits


@pytest.mark.parametrize("offset", [0.0, -0.5])
def test_padding_changes_nothing_on_the_image(offset: float) -> None:
    """The valid part of a padded image has, bit for bit, the embedding of the image alone."""
    padded = sine_position_embedding(rectangles(6, 9, (4, 5), (6, 2), (1, 9)), num_pos_feats=6, offset=offset)
    for image, (rows, columns) in enumerate(((4, 5), (6, 2), (1, 9))):
        alone = sine_position_embedding(rectangles(rows, columns, (rows, columns)), num_pos_feats=6, offset=offset)
        assert torch.equal(padded[image : image + 1, :, :rows, :columns], alone)


def test_shift_is_a_rotation() -> None:
    """One cell further turns every pair (sin, cos) by the same angle, wherever one starts."""
    output = sine_position_embedding(rectangles(1, 7, (1, 7)), num_pos_feats=8, temperature=20.0, dtype=torch.float64)
    pairs = output[0, 8:, 0].unflatten(0, (4, 2)).permute(0, 2, 1)  # (pair, column, (sin, cos))
    turned = torch.view_as_complex(pairs.flip(-1).contiguous())
    steps = turned[:, 1:] / turned[:, :-1]
    torch.testing.assert_close(steps, steps[:, :1].expand_as(steps))
    angle = 2 * math.pi / (7 + 1e-6) / 20 ** (torch.arange(0, 8, 2, dtype=torch.float64) / 8)
    torch.testing.assert_close(steps[:, 0].angle(), angle)


def test_first_and_last_cell_in_closed_form() -> None:
    """Without offset the last cell lies at 2 pi, with -0.5 the first one half a cell from 0."""
    mask = rectangles(1, 4, (1, 4))
    far = sine_position_embedding(mask, num_pos_feats=2, dtype=torch.float64)[0, 2:, 0, -1]
    torch.testing.assert_close(far, torch.tensor([-2 * math.pi * 1e-6 / 4, 1.0], dtype=torch.float64))
    near = sine_position_embedding(mask, num_pos_feats=2, offset=-0.5, dtype=torch.float64)[0, 2:, 0, 0]
    expected = [math.sin(math.pi / 4), math.cos(math.pi / 4)]
    torch.testing.assert_close(near, torch.tensor(expected, dtype=torch.float64), atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_wholly_padded_rows_stay_finite(dtype: torch.dtype) -> None:
    mask = rectangles(5, 6, (2, 3), (5, 6))
    output = sine_position_embedding(mask, num_pos_feats=6, offset=-0.5, dtype=dtype)
    assert output.dtype == dtype
    assert output.isfinite().all()
    assert output.abs().max() <= 1
    centred = sine_position_embedding(mask, num_pos_feats=6, dtype=dtype)[0, 6:, 4]
    assert torch.equal(centred, torch.tensor([0.0, 1.0] * 3, dtype=dtype)[:, None].expand(6, 6))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_is_the_rounded_float32(dtype: torch.dtype) -> None:
    """Also on maps longer than the integers that a half dtype can count."""
    mask = rectangles(1, 2100, (1, 2090))
    half = sine_position_embedding(mask, num_pos_feats=4, dtype=dtype)
    assert torch.equal(half, sine_position_embedding(mask, num_pos_feats=4).to(dtype))


def test_empty_maps() -> None:
    for shape in ((0, 3, 4), (2, 0, 4), (2, 3, 0)):
        output = sine_position_embedding(torch.zeros(shape, dtype=torch.bool), num_pos_feats=4)
        assert output.shape == (shape[0], 8, *shape[1:])


@pytest.mark.usefixtures("unchecked_shapes")
def test_errors() -> None:
    mask = rectangles(2, 3, (2, 3))
    for num_pos_feats in (0, 5, -2):
        with pytest.raises(ValueError, match=f"num_pos_feats must be even .* got {num_pos_feats}"):
            sine_position_embedding(mask, num_pos_feats=num_pos_feats)
    for temperature in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="temperature must be positive"):
            sine_position_embedding(mask, temperature=temperature)
    with pytest.raises(TypeError, match=r"mask must be bool .* got torch.uint8"):
        sine_position_embedding(mask.to(torch.uint8))
    with pytest.raises(ValueError, match=r"\(batch, height, width\), got \(2, 3\)"):
        sine_position_embedding(mask[0])
