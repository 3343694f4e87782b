"""transformers' attention and ViT behind the spec's signatures; what is added is said in `vision_transformer`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from detr_reference.vision_transformer.config import VisionTransformerConfig

Parts = dict[str, Tensor | tuple[Tensor, ...]]  # the reference's name -> the module's own parameter or parameters


class AdaptedAttention(nn.Module):
    """A family's attention with dropout behind it."""

    def __init__(self, attention: nn.Module, proj_drop: float) -> None:
        super().__init__()
        self.attention = attention
        self.proj_drop = proj_drop

    def forward(self, x: Float[Tensor, "batch token embed"]) -> Float[Tensor, "batch token embed"]:
        output = self.attention(x)
        output = output[0] if isinstance(output, tuple) else output
        return F.dropout(output, self.proj_drop, self.training)

    def spec_parameters(self) -> Parts:
        return attention_parts(self.attention, "")


class AdaptedVit(nn.Module):
    """A family's model with pooling behind it and, where the configuration asks for it, layer scale inside."""

    def __init__(self, model: Any, config: VisionTransformerConfig) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.scales = nn.ParameterDict()
        if config.layer_scale:
            for index, layer in enumerate(model.layers):
                for which, sublayer in (("ls1", layer.attention), ("ls2", layer.mlp)):
                    name = f"{index}_{which}"
                    self.scales[name] = nn.Parameter(torch.ones(config.embed_dim))
                    sublayer.register_forward_hook(partial(self._scaled, name))

    def forward(self, image: Float[Tensor, "batch channel height width"]) -> Tensor:
        tokens = self.model(image).last_hidden_state
        if self.config.pool == "none":
            return tokens
        return tokens[:, 0] if self.config.pool == "cls" else tokens[:, 1:].mean(1)

    def _scaled(self, name: str, sublayer: nn.Module, inputs: Any, output: Any) -> Tensor | tuple[Tensor, ...]:
        if isinstance(output, tuple):
            return output[0] * self.scales[name], *output[1:]
        return output * self.scales[name]

    def spec_parameters(self) -> Parts:
        embeddings = self.model.embeddings
        parts: Parts = {"cls_token": embeddings.cls_token, "pos_embed": embeddings.position_embeddings}
        parts |= layer_parts(embeddings.patch_embeddings.projection, "patch_embed.proj")
        parts |= layer_parts(self.model.layernorm, "norm")
        for index, layer in enumerate(self.model.layers):
            block = f"blocks.{index}"
            parts |= layer_parts(layer.layernorm_before, f"{block}.norm1")
            parts |= layer_parts(layer.layernorm_after, f"{block}.norm2")
            parts |= attention_parts(layer.attention, f"{block}.attn.")
            parts |= layer_parts(layer.mlp.fc1, f"{block}.mlp.fc1") | layer_parts(layer.mlp.fc2, f"{block}.mlp.fc2")
        return parts | {f"blocks.{name.replace('_', '.')}.gamma": scale for name, scale in self.scales.items()}


Adapted = TypeVar("Adapted", AdaptedAttention, AdaptedVit)


def loaded(module: Adapted, state_dict: Mapping[str, Tensor] | None) -> Adapted:
    """The module with copies of these parameters, in their dtype; None leaves them as the family initialises them."""
    if state_dict is None:
        return module
    module.to(next(iter(state_dict.values())))
    parts = module.spec_parameters()
    with torch.no_grad():
        for name, tensor in state_dict.items():
            own = parts[name]
            several = own if isinstance(own, tuple) else (own,)
            for part, rows in zip(several, tensor.chunk(len(several)), strict=True):
                part.copy_(rows)
    return module


def attention_parts(attention: Any, prefix: str) -> Parts:
    """query, key and value are three layers there; YOLOS names them so and nests them."""
    if hasattr(attention, "q_proj"):
        inner, out = [attention.q_proj, attention.k_proj, attention.v_proj], attention.o_proj
    else:
        own = attention.attention
        inner, out = [own.query, own.key, own.value], attention.output.dense
    parts: Parts = {f"{prefix}qkv.weight": tuple(layer.weight for layer in inner)}
    if inner[0].bias is not None:
        parts[f"{prefix}qkv.bias"] = tuple(layer.bias for layer in inner)
    return parts | layer_parts(out, f"{prefix}proj")


def layer_parts(layer: Any, name: str) -> Parts:
    return {f"{name}.weight": layer.weight, f"{name}.bias": layer.bias}
