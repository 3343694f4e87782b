"""The embedding of proposals against Python's floats, and against that of boxes, of which it is another order."""

from __future__ import annotations

import math

import pytest
import torch

from detr_reference.positions.box_position_embedding import box_position_embedding
from detr_reference.positions.proposal_position_embedding import proposal_position_embedding


def test_scalar_oracle() -> None:
    logits = [[0.3, -1.2, 2.0, -0.7], [math.inf, -3.0, 0.0, math.inf]]
    expected = []
    for proposal in logits:
        channels = []
        for coordinate in proposal:
            position = 2 * math.pi / (1 + math.exp(-coordinate))
            for channel in range(6):
                phase = position * 50.0 ** (-2 * (channel // 2) / 6)
                channels.append(math.cos(phase) if channel % 2 else math.sin(phase))
        expected.append(channels)
    given = torch.tensor(logits, dtype=torch.float64)
    found = proposal_position_embedding(given, num_pos_feats=6, temperature=50.0)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)


def test_the_embedding_of_boxes_in_another_order() -> None:
    """That one has y before x, and boxes after the sigmoid."""
    logits = torch.randn(2, 5, 4, dtype=torch.float64)
    x, y, w, h = proposal_position_embedding(logits, num_pos_feats=8).chunk(4, -1)
    of_boxes = box_position_embedding(logits.sigmoid(), num_pos_feats=8)
    torch.testing.assert_close(torch.cat((y, x, w, h), -1), of_boxes, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_is_the_rounded_float32(dtype: torch.dtype) -> None:
    logits = torch.randn(7, 4).to(dtype)
    found = proposal_position_embedding(logits)
    assert torch.equal(found, proposal_position_embedding(logits.float()).to(dtype))


def test_errors() -> None:
    with pytest.raises(ValueError, match="num_pos_feats must be even"):
        proposal_position_embedding(torch.randn(3, 4), num_pos_feats=5)
