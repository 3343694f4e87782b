"""The learned embedding: which entry goes where, gradients as counts, initial numbers and errors."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from detr_reference.positions.config import LearnedPositionEmbeddingConfig
from detr_reference.positions.learned_position_embedding import build

CONFIG = LearnedPositionEmbeddingConfig(num_pos_feats=3, num_rows=7, num_columns=5)


def tables(dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    return {"row_embed.weight": torch.rand(7, 3, dtype=dtype), "col_embed.weight": torch.rand(5, 3, dtype=dtype)}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_every_cell_by_hand(dtype: torch.dtype) -> None:
    """Column first, then row; the contents of the mask do not matter, and the largest map is allowed."""
    state = tables(dtype)
    for batch, height, width in ((2, 7, 5), (3, 2, 4), (1, 5, 1)):
        output = build(CONFIG, state)(torch.rand(batch, height, width) < 0.5)
        assert output.shape == (batch, 6, height, width)
        for b in range(batch):
            for i in range(height):
                for j in range(width):
                    cell = torch.cat((state["col_embed.weight"][j], state["row_embed.weight"][i]))
                    assert torch.equal(output[b, :, i, j], cell)


def test_gradient_counts_the_cells() -> None:
    """Each entry is used once for every cell of its row or column, in each image; the others not at all."""
    module = build(CONFIG, tables())
    module(torch.zeros(2, 4, 3, dtype=torch.bool)).sum().backward()
    rows, columns = module.row_embed.weight.grad, module.col_embed.weight.grad
    assert rows is not None
    assert columns is not None
    assert torch.equal(rows, torch.tensor([2.0 * 3] * 4 + [0.0] * 3).double()[:, None].expand(7, 3))
    assert torch.equal(columns, torch.tensor([2.0 * 4] * 3 + [0.0] * 2).double()[:, None].expand(5, 3))


def test_initialisation_is_uniform() -> None:
    module = build(LearnedPositionEmbeddingConfig(num_pos_feats=200))
    for table in (module.row_embed.weight, module.col_embed.weight):
        assert table.shape == (50, 200)
        assert 0 <= table.min() < 0.01
        assert 0.99 < table.max() < 1
        histogram = torch.histc(table.detach(), bins=10, min=0, max=1) / table.numel()
        torch.testing.assert_close(histogram, torch.full((10,), 0.1), rtol=0, atol=0.02)


def test_build_copies_the_tables() -> None:
    state = tables()
    module = build(CONFIG, state)
    for name, parameter in module.named_parameters():
        assert torch.equal(parameter, state[name])
        assert parameter.data_ptr() != state[name].data_ptr()


@pytest.mark.usefixtures("unchecked_shapes")
def test_errors() -> None:
    module = build(CONFIG, tables())
    for shape in ((1, 8, 5), (1, 7, 6)):
        with pytest.raises(ValueError, match="num_rows = 7 and num_columns = 5"):
            module(torch.zeros(shape, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"\(batch, height, width\), got \(2, 3\)"):
        module(torch.zeros(2, 3, dtype=torch.bool))
    with pytest.raises(TypeError, match="mask must be bool"):
        module(torch.zeros(1, 2, 3))
    for name in ("num_pos_feats", "num_rows", "num_columns"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
            LearnedPositionEmbeddingConfig(**{name: 0})
