"""Mutants of any block: what is kept from call to call, and what a call leaves behind (BLK-6 to BLK-8, BLK-31)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.every_block.mutants.perceptron import Layers
from detr_conformance.topics.positions.mutants.embeddings import SineByHand
from detr_reference.feed_forward.config import MLPConfig


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


@mutant("block-trains-a-scale", rejects="BLK-31", operation="mlp", origin="LayerScale with an initial value of 1")
class TrainsAScale(Layers):
    """Multiplies the output by a parameter of ones."""

    def __init__(self, config: MLPConfig, state_dict: Mapping[str, Tensor] | None = None) -> None:
        super().__init__(config, state_dict)
        self.scale = nn.Parameter(torch.ones(config.output_dim))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.scale


@mutant("block-layers-in-a-plain-list", rejects="BLK-31", operation="mlp", origin="self.layers = [nn.Linear(...)]")
class LayersInAPlainList(Layers):
    """Hides its last layer from optimisers."""

    def __init__(self, config: MLPConfig, state_dict: Mapping[str, Tensor] | None = None) -> None:
        self.hidden: list[nn.Linear] = []
        super().__init__(config, state_dict)
        self.hidden.append(self.linears[-1])
        del self.layers[-1]

    @property
    def linears(self) -> list[nn.Linear]:
        return [*super().linears, *self.hidden]

    def spec_parameters(self) -> dict[str, Tensor]:
        own = enumerate(self.linears)
        return {f"layers.{i}.{name}": t for i, layer in own for name, t in layer.named_parameters()}


@mutant("block-freezes-after-a-call", rejects="BLK-31", operation="mlp", origin="requires_grad_(False) left behind")
class FreezesAfterACall(Layers):
    """Freezes its first bias in the first training call."""

    def forward(self, x: Tensor) -> Tensor:
        output = super().forward(x)
        if self.training:
            self.linears[0].bias.requires_grad_(False)
        return output
