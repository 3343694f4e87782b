"""The attention and the Vision Transformers of Hugging Face transformers, as `self_attention` and `vit`.

Read in transformers 5.23. One text, ViTAttention, is copied into the families below; YOLOS keeps the older one with the
layers query, key and value. As whole models only ViT and ViT-MSN are `vit`: the others have another token or other
positions (DeiT a distillation token, I-JEPA no class token, DINOv2 with registers more tokens, YOLOS detection tokens),
a relative bias (BEiT), shuffled patches (ViT-MAE), or resample their positions for every image that is not square
(DINOv2).

What the adapters add, so that no verdict is about it:

- `self_attention`: dropout of the output, which stands in the layer there (`hidden_dropout_prob`).
- `vit`: the pooling, and layer scale, which these families lack: gamma multiplies what their attention and MLP return.

The attention runs as in their models, by scaled_dot_product_attention.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from detr_conformance.target import TargetError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from detr_reference.attention.config import SelfAttentionConfig
    from detr_reference.vision_transformer.config import VisionTransformerConfig

FAMILIES = {
    "vit": "ViT",
    "vit_msn": "ViTMSN",
    "vit_mae": "ViTMAE",
    "deit": "DeiT",
    "ijepa": "IJepa",
    "dinov2": "Dinov2",
    "yolos": "Yolos",
}
MODELS = ("vit", "vit_msn")


def provides(family: str) -> dict[str, Callable[..., nn.Module]]:
    """The operations of a family: factories by operation id."""
    factories: dict[str, Callable[..., nn.Module]] = {"self_attention": self_attention(family)}
    return factories | ({"vit": vit(family)} if family in MODELS else {})


def self_attention(family: str) -> Callable[..., nn.Module]:
    """Its attention as a factory `(config, state_dict) -> module`."""

    def factory(config: SelfAttentionConfig, state_dict: Mapping[str, Tensor] | None) -> nn.Module:
        from detr_conformance.targets.transformers.vision_transformer_adapters import AdaptedAttention, loaded

        theirs = configuration(
            family,
            hidden_size=config.embed_dim,
            num_attention_heads=config.num_heads,
            qkv_bias=config.qkv_bias,
            attention_probs_dropout_prob=config.attn_drop,
        )
        kind = getattr(source(family), f"{FAMILIES[family]}Attention")
        return loaded(AdaptedAttention(kind(theirs), config.proj_drop), state_dict)

    return factory


def vit(family: str) -> Callable[..., nn.Module]:
    """Its model as a factory `(config, state_dict) -> module`."""

    def factory(config: VisionTransformerConfig, state_dict: Mapping[str, Tensor] | None) -> nn.Module:
        from detr_conformance.targets.transformers.vision_transformer_adapters import AdaptedVit, loaded

        theirs = configuration(
            family,
            image_size=config.image_size,
            patch_size=config.patch_size,
            num_channels=config.in_channels,
            hidden_size=config.embed_dim,
            num_hidden_layers=config.depth,
            num_attention_heads=config.num_heads,
            intermediate_size=config.mlp_dim,
            qkv_bias=config.qkv_bias,
            layer_norm_eps=config.layer_norm_eps,
        )
        kind = getattr(source(family), f"{FAMILIES[family]}Model")
        model = kind(theirs, add_pooling_layer=False) if family == "vit" else kind(theirs)
        return loaded(AdaptedVit(model, config), state_dict)

    return factory


def variants(family: str) -> dict[str, str]:
    """None here."""
    return {}


def source(family: str) -> Any:
    """The family's modeling module."""
    try:
        return importlib.import_module(f"transformers.models.{family}.modeling_{family}")
    except ModuleNotFoundError as error:
        raise TargetError(f"this version of transformers has no {family}: {error}") from error


def configuration(family: str, **fields: Any) -> Any:
    """The family's own configuration, with the attention that its models choose."""
    kind = getattr(source(family), f"{FAMILIES[family]}PreTrainedModel").config_class
    config = kind(**fields)
    config._attn_implementation = "sdpa"
    return config
