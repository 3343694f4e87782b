"""Mutants of any block that are right until a training goes on: frozen layers, validation, copies (BLK-22 to 26)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from detr_conformance.evidence.registry import mutant
from detr_conformance.topics.every_block.mutants.perceptron import Layers
from detr_reference.every_block.parameters import with_parameters
from detr_reference.vision_transformer.config import VisionTransformerConfig
from detr_reference.vision_transformer.vit import VisionTransformer


@mutant("block-frozen-layer-without-graph", rejects="BLK-26", operation="mlp", origin="no_grad for a frozen backbone")
class FrozenLayerWithoutGraph(Layers):
    """Calls a layer that is frozen as a whole under no_grad, so that those before it are not trained either."""

    def linear(self, x: Tensor, layer: nn.Linear) -> Tensor:
        trained = any(parameter.requires_grad for parameter in layer.parameters())
        with torch.set_grad_enabled(torch.is_grad_enabled() and trained):
            return super().linear(x, layer)


@mutant("block-kept-from-inference", rejects="BLK-22", operation="mlp", origin="a table of positions made when asked")
class KeptFromInference(Layers):
    """Multiplies by a tensor that its first call made: in inference mode it cannot be saved for a backward pass."""

    ones: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.ones is None or self.ones.dtype != x.dtype:
            self.ones = torch.ones((), dtype=x.dtype, device=x.device)
        return super().forward(x * self.ones)


@mutant("block-keeps-its-hidden-units", rejects="BLK-23", operation="mlp", origin="self.last = x, for a picture of it")
class KeepsItsHiddenUnits(Layers):
    """Has the graph of its last training call on itself, where a deep copy finds it."""

    def between(self, x: Tensor) -> Tensor:
        x = super().between(x)
        if self.training:
            self.last = x
        return x


@mutant("block-keeps-every-step", rejects="BLK-25", operation="mlp", origin="losses appended with their graph")
class KeepsEveryStep(Layers):
    """Remembers every output of a training, with all that its gradient needs."""

    def forward(self, x: Tensor) -> Tensor:
        output = super().forward(x)
        if self.training and torch.is_grad_enabled():
            self.__dict__.setdefault("steps", []).append(output)
        return output


@mutant("vit-channels-last-as-rows", rejects="BLK-4", operation="vit", origin="is_contiguous() of any memory format")
def channels_last_as_rows(config: VisionTransformerConfig, state_dict: Mapping[str, Tensor] | None) -> nn.Module:
    """Takes a channels_last image for a dense one, and reads it as it lies in memory."""
    return with_parameters(ChannelsLastAsRows(config), state_dict)


class ChannelsLastAsRows(VisionTransformer):
    def forward(self, image: Tensor) -> Tensor:
        dense = image.is_contiguous(memory_format=torch.channels_last)
        return super().forward(image.permute(0, 2, 3, 1).reshape(image.shape) if dense else image)
