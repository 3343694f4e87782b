"""The box embedding against a scalar oracle, the sine embedding of a map, gradients, half precision and errors."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from detr_reference.positions.box_position_embedding import box_position_embedding
from detr_reference.positions.sine_position_embedding import sine_position_embedding


def oracle(box: list[float], num_pos_feats: int, temperature: float) -> list[float]:
    """The channels of one box, with Python's floats."""
    x, y, *size = box
    channels = []
    for coordinate in (y, x, *size):
        for channel in range(num_pos_feats):
            phase = 2 * math.pi * coordinate * temperature ** (-2 * (channel // 2) / num_pos_feats)
            channels.append(math.cos(phase) if channel % 2 else math.sin(phase))
    return channels


@given(
    shape=st.lists(st.integers(0, 3), max_size=3),
    coordinates=st.sampled_from((2, 4)),
    num_pos_feats=st.sampled_from((2, 6, 10)),
    temperature=st.sampled_from((20.0, 10000.0)),
    seed=st.integers(0, 2**16),
)
def test_scalar_oracle(shape: list[int], coordinates: int, num_pos_feats: int, temperature: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.rand(*shape, coordinates, generator=generator, dtype=torch.float64) * 3 - 1
    output = box_position_embedding(boxes, num_pos_feats=num_pos_feats, temperature=temperature)
    assert output.shape == (*shape, coordinates * num_pos_feats)
    expected = [oracle(box, num_pos_feats, temperature) for box in boxes.reshape(-1, coordinates).tolist()]
    wanted = torch.tensor(expected, dtype=torch.float64).reshape(output.shape)
    torch.testing.assert_close(output, wanted, rtol=0, atol=1e-12)


def test_agrees_with_the_embedding_of_cells() -> None:
    """The far corner of a cell, as a point, has the embedding of that cell: queries and keys speak one language."""
    height, width = 3, 5
    cells = sine_position_embedding(
        torch.zeros(1, height, width, dtype=torch.bool), num_pos_feats=6, dtype=torch.float64
    )
    y, x = torch.meshgrid(torch.arange(1.0, height + 1), torch.arange(1.0, width + 1), indexing="ij")
    points = torch.stack((x / width, y / height), -1).double()
    output = box_position_embedding(points, num_pos_feats=6)
    torch.testing.assert_close(output.permute(2, 0, 1), cells[0], rtol=0, atol=1e-5)  # epsilon


def test_gradients() -> None:
    boxes = (torch.rand(2, 3, 4, dtype=torch.float64) * 2 - 0.5).requires_grad_()
    assert torch.autograd.gradcheck(lambda b: box_position_embedding(b, num_pos_feats=6, temperature=20.0), boxes)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_is_the_rounded_float32(dtype: torch.dtype) -> None:
    boxes = torch.rand(50, 4).to(dtype)
    output = box_position_embedding(boxes)
    assert torch.equal(output, box_position_embedding(boxes.float()).to(dtype))


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("boxes", [torch.rand(2, 3), torch.rand(4, 1), torch.rand(5), torch.tensor(0.5)])
def test_wrong_number_of_coordinates(boxes: Tensor) -> None:
    with pytest.raises(ValueError, match=r"boxes must be \(\.\.\., 2\) or \(\.\.\., 4\), got"):
        box_position_embedding(boxes)


@pytest.mark.usefixtures("unchecked_shapes")
def test_errors() -> None:
    with pytest.raises(ValueError, match=r"num_pos_feats must be even .* got 7"):
        box_position_embedding(torch.rand(3, 4), num_pos_feats=7)
    with pytest.raises(ValueError, match=r"temperature must be positive, got 0\.0"):
        box_position_embedding(torch.rand(3, 4), temperature=0.0)
    with pytest.raises(TypeError, match=r"boxes must be floating, got torch.int64"):
        box_position_embedding(torch.ones(3, 4, dtype=torch.int64))
