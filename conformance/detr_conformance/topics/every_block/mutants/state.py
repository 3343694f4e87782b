"""Mutants of any block: what is kept from call to call, and what a call leaves behind (BLK-6 to BLK-8)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.every_block.mutants.perceptron import Layers
from detr_conformance.topics.positions.mutants.embeddings import SineByHand


@mutant("block-caches-by-pointer", rejects="BLK-6", operation="mlp", origin="memoised position embeddings")
class CachesByPointer(Layers):
    """Returns the last result while its input lies where it lay."""

    last: tuple[Any, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        key = (x.data_ptr(), x.shape, x.stride(), x.dtype)
        if torch.is_grad_enabled():
            return super().forward(x)
        if self.last is None or self.last[0] != key:
            self.last = (key, super().forward(x))
        return self.last[1].clone()


@mutant("block-stale-weights", rejects="BLK-6", operation="mlp", origin="weights packed for a kernel at the first call")
class StaleWeights(Layers):
    """Packs its weights at the first call and keeps them."""

    packed: list[Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return super().forward(x)
        if self.packed is None:
            self.packed = [layer.weight.detach().clone() for layer in self.linears]
        for i, layer in enumerate(self.linears):
            x = F.linear(F.relu(x) if i else x, self.packed[i], layer.bias)
        return x


@mutant("block-random-order", rejects="BLK-7", operation="mlp", origin="atomic additions")
class RandomOrder(Layers):
    """Adds up the hidden units in another order at each call."""

    def linear(self, x: Tensor, layer: nn.Linear) -> Tensor:
        generator = torch.Generator()
        generator.seed()
        order = torch.randperm(x.shape[-1], generator=generator)
        weight: Tensor = layer.weight[:, order]
        parts = (x[..., order, None] * weight.T).unbind(-2)
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total + layer.bias


@mutant("block-seeds", rejects="BLK-8", operation="mlp", origin="torch.manual_seed in a forward, to be reproducible")
class Seeds(Layers):
    """Seeds the global generator."""

    def forward(self, x: Tensor) -> Tensor:
        torch.manual_seed(0)
        return super().forward(x)


@mutant("block-leaves-grad-mode", rejects="BLK-8", operation="mlp", origin="set_grad_enabled called, not entered")
class LeavesGradMode(Layers):
    """Switches gradients off after a call without any."""

    def forward(self, x: Tensor) -> Tensor:
        output = super().forward(x)
        if not x.requires_grad:
            torch.set_grad_enabled(False)
        return output


@mutant(
    "block-sine-by-pointer",
    rejects="BLK-6",
    operation="sine_position_embedding",
    origin="transformers, models/detr/modeling_detr.py: an lru_cache keyed by the mask itself",
)
class SineByPointer(SineByHand):
    """Keeps the embedding of a mask, whatever becomes of the mask."""

    def __init__(self) -> None:
        self.kept: dict[Any, Tensor] = {}

    def __call__(self, mask: Tensor, **settings: Any) -> Tensor:
        key = (mask.data_ptr(), mask.shape, *settings.items())
        if key not in self.kept:
            self.kept[key] = super().__call__(mask, **settings)
        return self.kept[key].clone()
