"""A port of DINO as a target: modules of its own names, and a mistake that no strict load of the weights notices.

Its decoder layers are written with the names of Deformable DETR, where norm2 follows self-attention and norm1 the
attention to the image. The port takes them in the order of their numbers; their shapes are the same. The stages say
where it parts from the reference: detr-spec check docs/examples/ported_dino.py:target --operation dino
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from detr_conformance import STAGES, Target
from detr_reference import DINO, DINOConfig, MultiScaleDeformableAttention

LAYER = "transformer.decoder.layers"
RENAMED = {  # the reference's name -> the port's, in a decoder layer
    "attentions.0": "self_attn",
    "norms.0": "norm2",
    "attentions.1": "cross_attn",
    "norms.1": "norm1",
    "ffns.0.layers.0.0": "linear1",
    "ffns.0.layers.1": "linear2",
    "norms.2": "norm3",
}


class DecoderLayer(nn.Module):
    """Your own code."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        embed, hidden, rate = config.embed_dim, config.feedforward_dim, config.dropout
        self.self_attn = nn.MultiheadAttention(embed, config.num_heads, dropout=rate, batch_first=True)
        self.cross_attn = MultiScaleDeformableAttention(config.deformable_attention)
        self.linear1, self.linear2 = nn.Linear(embed, hidden), nn.Linear(hidden, embed)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(embed) for _ in range(3))
        self.dropout = nn.Dropout(rate)

    def forward(
        self, query: Tensor, value: Tensor, query_pos: Tensor, attn_mask: Any, key_padding_mask: Any, **levels: Any
    ) -> Tensor:
        placed = query + query_pos
        attended, _ = self.self_attn(placed, placed, query, attn_mask=attn_mask, need_weights=False)
        query = self.norm1(query + self.dropout(attended))  # the mistake: this should be norm2, and below norm1
        query = self.norm2(self.cross_attn(query, value, None, query_pos, key_padding_mask, **levels))
        hidden = self.dropout(self.linear1(query).relu())
        return self.norm3(query + self.dropout(self.linear2(hidden)))


class PortedDINO(nn.Module):
    """Your own model; here the reference around these layers."""

    def __init__(self, config: DINOConfig) -> None:
        super().__init__()
        self.model = DINO(config)
        self.names = list(self.model.state_dict())  # the reference's
        layers = (DecoderLayer(config.layer) for _ in range(config.num_decoder_layers))
        self.model.transformer.decoder.layers = nn.ModuleList(layers)

    def forward(self, images: Tensor, mask: Tensor, *targets: Tensor, **named: Tensor) -> dict[str, Tensor]:
        predictions: dict[str, Tensor] = self.model(images, mask, *targets, **named)
        return predictions

    def spec_parameters(self) -> dict[str, Tensor]:
        """The reference's name of each parameter: by these the suite reads their gradients."""
        own = dict(self.named_parameters()) | dict(self.named_buffers())
        return {name: own[own_name(name)] for name in self.names}


def own_name(name: str) -> str:
    """What the port calls a parameter of the reference."""
    found = re.fullmatch(rf"({LAYER}\.\d+)\.({'|'.join(map(re.escape, RENAMED))})\.(\w+.*)", name)
    return "model." + (f"{found[1]}.{RENAMED[found[2]]}.{found[3]}" if found else name)


def ported_dino(config: DINOConfig, state_dict: Mapping[str, Tensor] | None) -> nn.Module:
    """Your model with these parameters."""
    model = PortedDINO(config)
    if state_dict is not None:
        model.load_state_dict({own_name(name): tensor for name, tensor in state_dict.items()})
    return model


PARTS = {  # what each norm is given is an attention, or the linear layers, and what they are added to
    "self_attention": "norm1>input",
    "norm_0": "norm1",
    "sampling_locations": "cross_attn.core>sampling_locations",
    "attention_weights": "cross_attn.core>attention_weights",
    "cross_attention": "norm2>input",
    "norm_1": "norm2",
    "ffn": "norm3>input",
    "norm_2": "norm3",
}

target = Target(
    name="ported-dino",
    provides={"dino": ported_dino},
    stages={  # stage -> path of your module, or path>argument; parts of a layer are looked at where it diverges
        **{name: f"model.{path}" for name, path in STAGES["dino"].items()},
        **{f"decoder.{{i}}.{part}": f"model.{LAYER}.{{i}}.{path}" for part, path in PARTS.items()},
    },
)
