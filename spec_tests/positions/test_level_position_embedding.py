"""The level embedding against concatenation by hand, its gradients, and errors."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from detr_reference.positions.level_position_embedding import level_position_embedding


@given(
    shapes=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=4),
    batch=st.integers(1, 3),
    embed=st.integers(1, 5),
)
def test_levels_one_after_another(shapes: list[tuple[int, int]], batch: int, embed: int) -> None:
    """The same as adding each level's vector to its own map, and laying the maps end to end."""
    maps = [torch.rand(batch, height * width, embed, dtype=torch.float64) for height, width in shapes]
    levels = torch.rand(len(shapes), embed, dtype=torch.float64)
    output = level_position_embedding(torch.cat(maps, 1), torch.tensor(shapes), levels)
    expected = torch.cat([cells + vector for cells, vector in zip(maps, levels, strict=True)], 1)
    assert torch.equal(output, expected)


def test_gradients() -> None:
    cells = torch.rand(2, 8, 3, dtype=torch.float64, requires_grad=True)
    levels = torch.rand(2, 3, dtype=torch.float64, requires_grad=True)
    shapes = torch.tensor([[2, 3], [1, 2]])
    assert torch.autograd.gradcheck(lambda p, e: level_position_embedding(p, shapes, e), (cells, levels))
    level_position_embedding(cells, shapes, levels).sum().backward()
    assert levels.grad is not None
    assert torch.equal(levels.grad, torch.tensor([[12.0] * 3, [4.0] * 3]).double())  # 2 images of 6 and 2 cells


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("shapes", "levels", "message"),
    [
        ([[2, 3], [1, 3]], (2, 3), r"8 cells, but spatial_shapes \[\[2, 3\], \[1, 3\]\] asks for .* = 9"),
        ([[2, 3]], (1, 3), "8 cells"),
        ([[2, 3], [-1, -2]], (2, 3), "negative side"),
        ([[2, 3], [1, 2]], (3, 3), r"level_embed must be .* \(2, 3\), .* got \(3, 3\)"),
        ([[2, 3], [1, 2]], (2, 4), r"level_embed must be .* \(2, 3\), .* got \(2, 4\)"),
        ([2, 3], (2, 3), r"spatial_shapes must be \(level, 2\)"),
    ],
)
def test_errors(shapes: list[list[int]], levels: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        level_position_embedding(torch.zeros(2, 8, 3), torch.tensor(shapes), torch.zeros(levels))


@pytest.mark.usefixtures("unchecked_shapes")
def test_flat_embedding_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(batch, cell, embed\), got \(8, 3\)"):
        level_position_embedding(torch.zeros(8, 3), torch.tensor([[2, 4]]), torch.zeros(1, 3))
