"""The stages of the whole models, in the order in which they run: where a divergence may begin. Plain data, no torch.

A stage is what an inner module returns, written as its path, or what one is given, written `path>argument`. `{i}`
stands for every number that has a module. The paths here are the reference's; a target maps the names to its own.
"""

from __future__ import annotations

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
STAGE_NAMES = tuple(dict.fromkeys(name for stages in STAGES.values() for name in stages))
