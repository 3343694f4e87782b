"""Transformer layers with every parameter perturbed, and calls of them in which no two lengths are equal."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from detr_reference.transformer.config import TransformerLayerConfig

POST = ("self_attn", "norm", "cross_attn", "norm", "ffn", "norm")
PRE = ("norm", "self_attn", "norm", "cross_attn", "norm", "ffn")
CONFIG = TransformerLayerConfig(embed_dim=12, num_heads=3, feedforward_dim=20, operation_order=POST)
QUERIES, KEYS = 5, 7


def config(*order: str, **changes: object) -> TransformerLayerConfig:
    return replace(CONFIG, operation_order=order, **changes)


def without_cross(order: tuple[str, ...]) -> tuple[str, ...]:
    """The encoder's order that belongs to a decoder's."""
    at = order.index("cross_attn")
    return order[:at] + order[at + 2 :]


def perturbed(module: nn.Module) -> nn.Module:
    """In float64 and evaluation mode, no parameter as it was initialised: initial ones hide most defects."""
    module = module.double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return module


def padding(length: int) -> Tensor:
    """(2, length): the first image lacks its last token, the second its last three."""
    return torch.arange(length) >= length - torch.tensor([[1], [3]])


def encoder_call() -> dict[str, Tensor]:
    return {
        "query": torch.randn(2, QUERIES, 12, dtype=torch.float64),
        "query_pos": torch.randn(2, QUERIES, 12, dtype=torch.float64),
        "attn_mask": torch.eye(QUERIES, dtype=torch.bool).roll(1, 1),
        "query_key_padding_mask": padding(QUERIES),
    }


def decoder_call() -> dict[str, Tensor]:
    return encoder_call() | {
        "key": torch.randn(2, KEYS, 12, dtype=torch.float64),
        "key_pos": torch.randn(2, KEYS, 12, dtype=torch.float64),
        "cross_attn_mask": torch.eye(QUERIES, KEYS, dtype=torch.bool).roll(2, 1),
        "key_padding_mask": padding(KEYS),
    }
