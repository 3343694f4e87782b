"""The stages of the whole models, in the order in which they run: where a divergence may begin. Plain data, no torch.

A stage is what an inner module returns, written as its path, or what one is given, written `path>argument`. A path may
also end in a plain function that a module holds as an attribute. `{i}` stands for every number that has a module. The
paths here are the reference's; a target maps the names to its own, as many as it likes.

`STAGES` are those of whole models. `PARTS` lie inside a stage, `decoder.{i}.norm_0` inside `decoder.{i}`, and are
looked at where it diverges. Each attention and feed-forward network is there with what it is added to, before the norm:
a module that adds later is named by what the norm is given, `path.of.norm1>input`. `LAYERS` are of blocks that have
inner modules, and of whole models where only some have the stage.
"""

from __future__ import annotations

import re
from collections.abc import Mapping


def _sampling(function: str) -> dict[str, str]:
    return {name: f"{function}>{name}" for name in ("sampling_locations", "attention_weights")}


_LEVELS = {
    "backbone": "backbone",
    "neck": "transformer.encoder.layers.0>query",
    "positions": "transformer.encoder.layers.0>query_pos",
    "encoder_references": "transformer.encoder.layers.0>reference_points",
    "encoder.{i}": "transformer.encoder.layers.{i}",
}
_FIRST_STAGE = {"first_stage_memory": "transformer.enc_output", "first_stage": "transformer.enc_output_norm"}
_HEADS = {"class_head.{i}": "class_embed.{i}", "box_head.{i}": "bbox_embed.{i}"}

STAGES: dict[str, dict[str, str]] = {
    "detr": {
        "backbone": "backbone",
        "input_proj": "input_proj",
        "positions": "transformer.encoder.layers.0>query_pos",
        "encoder.{i}": "transformer.encoder.layers.{i}",
        "decoder.{i}": "transformer.decoder.layers.{i}",
        "final_norm": "transformer.decoder.post_norm_layer",
        "class_head": "class_embed",
        "box_head": "bbox_embed",
    },
    "deformable_detr": {
        **_LEVELS,
        **_FIRST_STAGE,
        "query_position": "transformer.decoder.layers.0>query_pos",
        "query_content": "transformer.decoder.layers.0>query",
        "decoder_references.{i}": "transformer.decoder.layers.{i}>reference_points",
        "decoder.{i}": "transformer.decoder.layers.{i}",
        **_HEADS,
    },
    "dino": {
        **_LEVELS,
        **_FIRST_STAGE,
        "selection": "transformer.decoder>reference_points",
        "query_content": "transformer.decoder>query",
        "query_position.{i}": "transformer.decoder.layers.{i}>query_pos",
        "decoder_references.{i}": "transformer.decoder.layers.{i}>reference_points",
        "decoder.{i}": "transformer.decoder.layers.{i}",
        "decoder_norm": "transformer.decoder.norm",
        **_HEADS,
    },
}
LAYERS: dict[str, dict[str, str]] = {
    "deformable_detr": {"selection": "transformer.decoder>reference_points"},
    "ms_deform_attn_module": _sampling("core"),
    "encoder_layer": {"attention.{i}": "attentions.{i}", "norm.{i}": "norms.{i}", "ffn.{i}": "ffns.{i}"},
    "decoder_layer": {"attention.{i}": "attentions.{i}", "norm.{i}": "norms.{i}", "ffn.{i}": "ffns.{i}"},
    "dino_decoder": {
        "layer_position.{i}": "layers.{i}>query_pos",
        "layer_references.{i}": "layers.{i}>reference_points",
        "layer.{i}": "layers.{i}",
        "layer_norm": "norm",
    },
}


def _inside(stage: str, layer: str, parts: Mapping[str, str]) -> dict[str, str]:
    return {f"{stage}.{part}": f"{layer}.{path}" for part, path in parts.items()}


_SELF_ATTENTION = {"self_attention": "attentions.0", "norm_0": "norms.0"}
_ENDS = {"norm_1": "norms.1", "ffn": "ffns.0", "norm_2": "norms.2"}
_PLAIN_ENCODER = {"self_attention": "attentions.0", "norm_0": "norms.0", "ffn": "ffns.0", "norm_1": "norms.1"}
_PLAIN_DECODER = {**_SELF_ATTENTION, "cross_attention": "attentions.1", **_ENDS}
_DEFORMABLE_ENCODER = {**_sampling("attentions.0.core"), **_PLAIN_ENCODER}
_DEFORMABLE_DECODER = {
    **_SELF_ATTENTION,
    **_sampling("attentions.1.core"),
    "cross_attention": "attentions.1",
    **_ENDS,
}
_ENCODER, _DECODER = (
    ("encoder.{i}", "transformer.encoder.layers.{i}"),
    ("decoder.{i}", "transformer.decoder.layers.{i}"),
)
_DEFORMABLE = {**_inside(*_ENCODER, _DEFORMABLE_ENCODER), **_inside(*_DECODER, _DEFORMABLE_DECODER)}

PARTS: dict[str, dict[str, str]] = {
    "detr": {**_inside(*_ENCODER, _PLAIN_ENCODER), **_inside(*_DECODER, _PLAIN_DECODER)},
    "deformable_detr": _DEFORMABLE,
    "dino": _DEFORMABLE,
    "dino_decoder": _inside("layer.{i}", "layers.{i}", _DEFORMABLE_DECODER),
}
TABLES = (STAGES, LAYERS, PARTS)
STAGE_NAMES = tuple(dict.fromkeys(name for table in TABLES for stages in table.values() for name in stages))


def stages_of(operation: str) -> dict[str, str]:
    """The stages of an operation that are judged one after the other: the reference's paths by name."""
    return STAGES.get(operation, {}) | LAYERS.get(operation, {})


def pattern_of(stage: str) -> str:
    """decoder.{i}.norm_0 of decoder.2.norm_0"""
    return re.sub(r"\.\d+(?=\.|$)", ".{i}", stage)
