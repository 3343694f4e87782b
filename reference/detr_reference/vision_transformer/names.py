"""State dicts of other libraries' Vision Transformers under the reference's names.

timm (models/vision_transformer.py) has the reference's own names. transformers has two sets: what checkpoints of
version 4 hold, `encoder.layer.0.attention.attention.query`, and what modules of version 5 are called,
`layers.0.attention.q_proj` (models/vit, conversion_mapping.py); DINOv2 (models/dinov2) differs in the names of norms
and has layer scale. Every name of either set is accepted; a name that is unknown, missing, given twice or of the wrong
size is reported, all at once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from detr_reference.vision_transformer.config import VisionTransformerConfig
from detr_reference.vision_transformer.vit import VisionTransformer

TIMM_UNUSED = r"head\..*"
TRANSFORMERS_UNUSED = r"(classifier|pooler)\..*|embeddings\.mask_token"

_LAYER = r"(?:encoder\.layer|layers)\.(\d+)"
_KIND = r"(weight|bias)"
_TRANSFORMERS = {
    r"embeddings\.cls_token": r"cls_token",
    r"embeddings\.position_embeddings": r"pos_embed",
    rf"embeddings\.patch_embeddings\.projection\.{_KIND}": r"patch_embed.proj.\1",
    rf"{_LAYER}\.(?:layernorm_before|norm1)\.{_KIND}": r"blocks.\1.norm1.\2",
    rf"{_LAYER}\.(?:layernorm_after|norm2)\.{_KIND}": r"blocks.\1.norm2.\2",
    rf"{_LAYER}\.attention\.(?:attention\.query|q_proj)\.{_KIND}": r"blocks.\1.attn.q.\2",
    rf"{_LAYER}\.attention\.(?:attention\.key|k_proj)\.{_KIND}": r"blocks.\1.attn.k.\2",
    rf"{_LAYER}\.attention\.(?:attention\.value|v_proj)\.{_KIND}": r"blocks.\1.attn.v.\2",
    rf"{_LAYER}\.attention\.(?:output\.dense|o_proj)\.{_KIND}": r"blocks.\1.attn.proj.\2",
    rf"{_LAYER}\.(?:intermediate\.dense|mlp\.fc1)\.{_KIND}": r"blocks.\1.mlp.fc1.\2",
    rf"{_LAYER}\.(?:output\.dense|mlp\.fc2)\.{_KIND}": r"blocks.\1.mlp.fc2.\2",
    rf"{_LAYER}\.layer_scale(\d)\.lambda1": r"blocks.\1.ls\2.gamma",
    rf"layernorm\.{_KIND}": r"norm.\1",
}


def from_timm(state_dict: Mapping[str, Tensor], config: VisionTransformerConfig) -> dict[str, Tensor]:
    """timm's state dict without its classification head.

    Raises:
        ValueError: the model normalises behind its pooling (`fc_norm`, timm's default for global_pool="avg"), which is
            another function; or the names or sizes are not those of `config`.
    """
    if any(name.startswith("fc_norm.") for name in state_dict):
        raise ValueError(
            "the state dict holds fc_norm: this timm model normalises the mean of the patches, and the reference takes "
            'the mean of normalised patches; no pool computes the former (timm: global_pool="avg" with fc_norm)'
        )
    return _checked({name: t for name, t in state_dict.items() if not re.fullmatch(TIMM_UNUSED, name)}, [], config)


def from_transformers(state_dict: Mapping[str, Tensor], config: VisionTransformerConfig) -> dict[str, Tensor]:
    """The state dict of a ViT or DINOv2 of transformers, with or without a head, without its pooler and head.

    query, key and value of a layer become the three thirds of `attn.qkv`, in this order. Sizes cannot tell them apart:
    that the order is right shows in equal outputs only.

    Raises:
        ValueError: the names or sizes are not those of `config`.
    """
    renamed: dict[str, Tensor] = {}
    faults: list[str] = []
    for name, tensor in state_dict.items():
        bare = re.sub(r"^(vit|dinov2)\.", "", name)
        if re.fullmatch(TRANSFORMERS_UNUSED, bare):
            continue
        new = _reference_name(bare)
        if new is None:
            faults.append(f"unknown: {name}")
        elif new in renamed:
            faults.append(f"given twice: {name} and another name of the same parameter")
        else:
            renamed[new] = tensor
    return _checked(_joined(renamed), faults, config)


def _reference_name(name: str) -> str | None:
    for pattern, replacement in _TRANSFORMERS.items():
        match = re.fullmatch(pattern, name)
        if match:
            return match.expand(replacement)
    return None


def _joined(separate: dict[str, Tensor]) -> dict[str, Tensor]:
    """q, k and v laid end to end where all three are there; otherwise left, to be reported as unknown."""
    joined = dict(separate)
    for name in separate:
        if ".attn.q." not in name:
            continue
        parts = [name.replace(".attn.q.", f".attn.{part}.") for part in "qkv"]
        if all(part in separate for part in parts):
            joined[name.replace(".attn.q.", ".attn.qkv.")] = torch.cat([joined.pop(part) for part in parts])
    return joined


def _checked(found: dict[str, Tensor], faults: list[str], config: VisionTransformerConfig) -> dict[str, Tensor]:
    with torch.device("meta"):
        expected = VisionTransformer(config).state_dict()
    faults += [f"unknown: {name}" for name in found if name not in expected]
    faults += [f"missing: {name}" for name in expected if name not in found]
    faults += [
        f"size: {name} is {tuple(found[name].shape)} and should be {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in found and found[name].shape != tensor.shape
    ]
    if faults:
        raise ValueError("the state dict does not fit the configuration:\n  " + "\n  ".join(faults))
    return found
