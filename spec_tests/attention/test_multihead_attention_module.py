"""The module around multi-head attention: initialisation, dropout, and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch

from detr_reference.attention.config import MultiheadAttentionConfig
from detr_reference.attention.multihead_attention import build

CONFIG = MultiheadAttentionConfig(embed_dim=6, num_heads=3)
QUERY, KEY = torch.zeros(2, 4, 6), torch.zeros(2, 5, 6)


def test_initialisation_is_torch_s() -> None:
    """The same bounds, the same zeros."""
    ours = build(MultiheadAttentionConfig(96, 8)).state_dict()
    theirs = torch.nn.MultiheadAttention(96, 8).state_dict()
    assert {name: tensor.shape for name, tensor in ours.items()} == {n: t.shape for n, t in theirs.items()}
    for state in (ours, theirs):
        assert 0.98 < state["in_proj_weight"].abs().max() / math.sqrt(6 / (4 * 96)) <= 1
        assert 0.98 < state["out_proj.weight"].abs().max() * math.sqrt(96) <= 1
        assert not state["in_proj_bias"].any()
        assert not state["out_proj.bias"].any()


def test_dropout_of_weights_comes_before_the_values() -> None:
    """With values and projections that show the weights: each is 0 or w / (1 - p)."""
    config = MultiheadAttentionConfig(embed_dim=6, num_heads=1, attn_drop=0.25)
    eye = torch.eye(6)
    state = {"in_proj_weight": torch.cat((eye, eye, eye)), "in_proj_bias": torch.zeros(18)}
    module = build(config, {**state, "out_proj.weight": eye, "out_proj.bias": torch.zeros(6)})
    query, key, values = torch.randn(3, 200, 6), torch.randn(3, 6, 6), torch.eye(6).expand(3, 6, 6)
    zero = torch.zeros_like(query)
    weights = module.eval()(query, key, values, zero)
    dropped = module.train()(query, key, values, zero)
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 200))
    gone = dropped == 0
    torch.testing.assert_close(dropped[~gone], weights[~gone] / 0.75)
    assert abs(gone.double().mean() - 0.25) < 0.04


def test_dropout_of_the_result_leaves_the_identity() -> None:
    module = build(MultiheadAttentionConfig(6, 3, proj_drop=1.0)).train()
    query = torch.randn(2, 4, 6)
    assert torch.equal(module(query), query)
    assert not torch.equal(module.eval()(query), query)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"embed_dim": 0}, "embed_dim must be at least 1, got 0"),
        ({"num_heads": 7}, "num_heads must divide embed_dim, but 256 / 7 leaves 4 channels over"),
        ({"attn_drop": 1.5}, "attn_drop must lie between 0 and 1, got 1.5"),
        ({"proj_drop": -0.1}, "proj_drop must lie between 0 and 1, got -0.1"),
    ],
)
def test_configuration_is_checked(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MultiheadAttentionConfig(**fields)  # type: ignore[arg-type]


def flags(*shape: int) -> torch.Tensor:
    return torch.zeros(shape, dtype=torch.bool)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"query": torch.zeros(4, 6)}, ValueError, r"query must be \(batch, length, 6\), got \(4, 6\)"),
        ({"key": torch.zeros(2, 5, 7)}, ValueError, r"key must be \(batch, length, 6\), got \(2, 5, 7\)"),
        ({"key": torch.zeros(1, 5, 6)}, ValueError, r"key \(1, 5, 6\) and query \(2, 4, 6\) differ in batch"),
        ({"value": QUERY}, ValueError, r"value \(2, 4, 6\) must have the shape of key, \(2, 5, 6\)"),
        ({"identity": KEY}, ValueError, r"identity \(2, 5, 6\) must have the shape of query, \(2, 4, 6\)"),
        ({"query_pos": torch.zeros(1, 4, 6)}, ValueError, r"query_pos \(1, 4, 6\) must have the shape of query"),
        ({"key_pos": QUERY}, ValueError, r"key_pos \(2, 4, 6\) must have the shape of key, \(2, 5, 6\)"),
        ({"attn_mask": flags(5, 4)}, ValueError, r"attn_mask must be \(query, key\) = \(4, 5\) .* got \(5, 4\)"),
        ({"attn_mask": flags(2, 4, 5)}, ValueError, r"\(batch \* heads, query, key\) = \(6, 4, 5\), got \(2, 4, 5\)"),
        ({"attn_mask": flags(4, 5).long()}, TypeError, "attn_mask must be bool .True forbids. or floating, got"),
        ({"key_padding_mask": flags(2, 4)}, ValueError, r"key_padding_mask must be \(batch, key\) = \(2, 5\)"),
        ({"key_padding_mask": torch.zeros(2, 5)}, TypeError, "key_padding_mask must be bool .True is padding., got"),
    ],
)
def test_arguments_are_checked(changes: dict[str, torch.Tensor], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build(CONFIG)(**{"query": QUERY, "key": KEY, **changes})


def test_parameters_are_copied_and_checked() -> None:
    state = {name: tensor.double() for name, tensor in build(CONFIG).state_dict().items()}
    module = build(CONFIG, state)
    assert module.in_proj_weight.dtype == torch.float64
    assert module.in_proj_weight.data_ptr() != state["in_proj_weight"].data_ptr()
    del state["out_proj.bias"]
    with pytest.raises(RuntimeError, match=r"out_proj\.bias"):
        build(CONFIG, state)
