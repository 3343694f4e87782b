"""Mutants whose masks repeat: between layers, between blocks of tokens; or which drop only with gradients (BLK-33)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from detr_conformance.evidence.registry import mutant
from detr_reference.attention.config import MultiheadAttentionConfig
from detr_reference.attention.multihead_attention import MultiheadAttention
from detr_reference.every_block.parameters import with_parameters
from detr_reference.feed_forward.config import FeedForwardConfig
from detr_reference.feed_forward.feed_forward import FeedForward
from detr_reference.transformer.config import TransformerLayerConfig
from detr_reference.transformer.layer import DecoderLayer

TOKENS = 1024


class OwnDropout(nn.Module):
    """Draws from a generator of its own."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability
        self.generator = torch.Generator().manual_seed(0)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.probability == 0:
            return x
        kept = torch.rand(x.shape, generator=self.generator) >= self.probability
        return x * kept.to(x) / (1 - self.probability)

    def __deepcopy__(self, memory: dict[int, Any]) -> OwnDropout:
        return OwnDropout(self.probability).train(self.training)


@mutant(
    "attention-own-generator", rejects="BLK-33", operation="multihead_attention", origin="a kernel with its own seed"
)
def own_generator(config: MultiheadAttentionConfig, state_dict: Mapping[str, Tensor] | None) -> nn.Module:
    """Every layer and every rank drops what the first one does."""
    module = with_parameters(MultiheadAttention(config), state_dict)
    for name in ("attn_drop", "proj_drop"):
        setattr(module, name, OwnDropout(getattr(config, name)))
    return module


@mutant(
    "network-mask-of-a-chunk", rejects="BLK-33", operation="feed_forward", origin="a seed and offset of each launch"
)
def mask_of_a_chunk(config: FeedForwardConfig, state_dict: Mapping[str, Tensor] | None) -> nn.Module:
    """Goes through its tokens in chunks, all of which drop what the first one does."""
    return with_parameters(MaskOfAChunk(config), state_dict)


class MaskOfAChunk(FeedForward):
    def forward(self, x: Tensor, identity: Tensor | None = None) -> Tensor:
        tokens = x.flatten(0, -2)
        if not self.training or len(tokens) <= TOKENS or not self.config.add_identity:
            return super().forward(x, identity)
        before, parts = torch.random.get_rng_state(), []
        for chunk in tokens.split(TOKENS):
            torch.random.set_rng_state(before)
            parts.append(super().forward(chunk, torch.zeros_like(chunk)))
        return torch.cat(parts).view(x.shape) + (x if identity is None else identity)


@mutant(
    "layer-drops-with-gradients", rejects="BLK-33", operation="decoder_layer", origin="an inference path by grad mode"
)
def drops_with_gradients(config: TransformerLayerConfig, state_dict: Mapping[str, Tensor] | None) -> nn.Module:
    """Drops nothing under no_grad, where the first pass of a checkpoint is."""
    return with_parameters(DropsWithGradients(config), state_dict)


class DropsWithGradients(DecoderLayer):
    def forward(self, *arguments: Any, **named: Any) -> Tensor:
        training = self.training
        self.train(training and torch.is_grad_enabled())
        try:
            return super().forward(*arguments, **named)
        finally:
            self.train(training)
