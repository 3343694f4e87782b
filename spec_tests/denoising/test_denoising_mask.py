"""The mask of denoising queries: a plain loop, the published form, and what it does inside an attention."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from detr_reference.attention.config import MultiheadAttentionConfig
from detr_reference.attention.multihead_attention import MultiheadAttention
from detr_reference.denoising.denoising_mask import denoising_attention_mask


@given(st.integers(0, 4), st.integers(0, 4), st.integers(0, 4))
def test_equals_a_loop(groups: int, group_size: int, num_matching: int) -> None:
    """Each pair of queries by itself, with None as the group of the matching queries."""
    group = [g for g in range(groups) for _ in range(group_size)] + [None] * num_matching
    expected = [[key is not None and key != query for key in group] for query in group]
    mask = denoising_attention_mask(groups, group_size, num_matching)
    assert mask.dtype == torch.bool
    assert mask.shape == (len(group), len(group))
    assert mask.tolist() == expected


def test_small_example() -> None:
    """Two groups of two, three matching queries: as a picture."""
    picture = ["..##...", "..##...", "##.....", "##.....", "####...", "####...", "####..."]
    assert denoising_attention_mask(2, 2, 3).tolist() == [[mark == "#" for mark in row] for row in picture]


def test_nobody_is_left_without_keys() -> None:
    """Every query may attend at least to itself, so that no softmax is empty."""
    assert not denoising_attention_mask(5, 6, 7).diagonal().any()


def test_matching_queries_are_computed_as_if_there_were_no_denoising() -> None:
    """Inside an attention: information flows from matching to denoising queries, never back, never across groups."""
    attention = MultiheadAttention(MultiheadAttentionConfig(embed_dim=6, num_heads=2)).double().eval()
    queries = torch.randn(1, 7, 6, dtype=torch.float64, requires_grad=True)
    output = attention(queries, attn_mask=denoising_attention_mask(2, 2, 3))
    torch.testing.assert_close(output[:, 4:], attention(queries[:, 4:]))
    reaches = torch.stack(
        [torch.autograd.grad(output[0, i].sum(), queries, retain_graph=True)[0][0].abs().amax(-1) > 0 for i in range(7)]
    )
    assert torch.equal(reaches, ~denoising_attention_mask(2, 2, 3))


@pytest.mark.parametrize("arguments", [(-1, 2, 3), (2, -1, 3), (2, 2, -1)])
def test_negative_numbers_are_refused(arguments: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="must be at least 0, got -1"):
        denoising_attention_mask(*arguments)
