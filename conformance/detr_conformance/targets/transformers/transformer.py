"""What a family of transformers provides of layers, networks and heads; `transformer_families` has the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from detr_conformance.targets.transformers.transformer_families import FAMILIES

if TYPE_CHECKING:
    from torch import Tensor, nn

    from detr_reference.feed_forward.config import FeedForwardConfig, MLPConfig
    from detr_reference.transformer.config import TransformerLayerConfig


def provides(name: str) -> dict[str, Callable[..., nn.Module]]:
    """The operations of a family: factories by operation id."""
    family = FAMILIES[name]
    offered = {
        "encoder_layer": _encoder_layer(name, family.pre_norm) if family.encoder else None,
        "decoder_layer": _decoder_layer(name) if family.decoder else None,
        "feed_forward": _feed_forward(name) if family.network else None,
        "mlp": _mlp(name) if family.head else None,
    }
    return {operation: factory for operation, factory in offered.items() if factory is not None}


def provides_pre_norm(name: str) -> dict[str, Callable[..., nn.Module]]:
    """The pre-norm encoder layer of a family of PRE_NORM_TOO."""
    return {"encoder_layer": _encoder_layer(name, pre_norm=True)}


def variants(name: str, pre_norm: bool = False) -> dict[str, str]:
    """The variants that a target of the family declares."""
    family = FAMILIES[name]
    order = {"operation_order": "pre-norm" if pre_norm or family.pre_norm else "post-norm"}
    return (order if family.encoder or family.decoder else {}) | ({"num_fcs": "2"} if family.network else {})


def _encoder_layer(name: str, pre_norm: bool) -> Callable[..., nn.Module]:
    def encoder_layer(config: TransformerLayerConfig, state_dict: Mapping[str, Tensor] | None) -> nn.Module:
        from detr_conformance.targets.transformers.transformer_adapters import encoder_layer

        return encoder_layer(name, config, state_dict, pre_norm)

    return encoder_layer


def _decoder_layer(name: str) -> Callable[..., nn.Module]:
    def decoder_layer(config: TransformerLayerConfig, state_dict: Mapping[str, Tensor] | None) -> nn.Module:
        from detr_conformance.targets.transformers.transformer_adapters import decoder_layer

        return decoder_layer(name, config, state_dict)

    return decoder_layer


def _feed_forward(name: str) -> Callable[..., nn.Module]:
    def feed_forward(config: FeedForwardConfig, state_dict: Mapping[str, Tensor] | None) -> nn.Module:
        from detr_conformance.targets.transformers.transformer_adapters import feed_forward

        return feed_forward(name, config, state_dict)

    return feed_forward


def _mlp(name: str) -> Callable[..., nn.Module]:
    def mlp(config: MLPConfig, state_dict: Mapping[str, Tensor] | None) -> nn.Module:
        from detr_conformance.targets.transformers.transformer_adapters import mlp

        return mlp(name, config, state_dict)

    return mlp
