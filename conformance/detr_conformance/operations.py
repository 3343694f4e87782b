"""The operations a target may provide, and the variants it may declare. Plain data, no torch."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

EVERY_BLOCK = "03-every-block.md"


@dataclass(frozen=True)
class Operation:
    """One row of the table of operations.

    Attributes:
        kind: "function" (stateless) or "module" (a factory `(config, state_dict) -> module`).
        arguments: names of the callable's arguments, in order: a function's tensors, a module's config and state_dict.
        reference: where the reference's own callable lives, as "module:attribute".
        chapters: the spec chapters whose clauses apply to it, its own one first.
        config: where a module's configuration lives, as "module:attribute".
        inputs: the tensors that a call takes by name: a module's call, a function's arguments.
        settings: keyword settings of a function.
    """

    kind: str
    arguments: tuple[str, ...]
    reference: str
    chapters: tuple[str, ...]
    config: str | None = None
    inputs: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()


def resolve(path: str) -> Any:
    """What "module:attribute" names, imported now."""
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _function(reference: str, chapter: str, *inputs: str, settings: tuple[str, ...] = ()) -> Operation:
    return Operation(
        "function", inputs, f"detr_reference.{reference}", (chapter, EVERY_BLOCK), inputs=inputs, settings=settings
    )


def _module(reference: str, config: str, chapter: str, *inputs: str) -> Operation:
    file = reference.partition(":")[0]
    return Operation(
        "module",
        ("config", "state_dict"),
        f"detr_reference.{reference}",
        (chapter, EVERY_BLOCK),
        config=f"detr_reference.{file}:{config}",
        inputs=inputs,
    )


OPERATIONS: dict[str, Operation] = {
    "ms_deform_attn": Operation(
        kind="function",
        arguments=("value", "spatial_shapes", "level_start_index", "sampling_locations", "attention_weights"),
        reference="detr_reference.deformable_attention:ms_deform_attn",
        chapters=("01-deformable-attention.md",),
    ),
    "ms_deform_attn_module": Operation(
        kind="module",
        arguments=("config", "state_dict"),
        reference="detr_reference.deformable_attention_module:build",
        chapters=("02-deformable-attention-module.md",),
        config="detr_reference.deformable_attention_module:MSDeformAttnConfig",
        inputs=(
            "query",
            "value",
            "identity",
            "query_pos",
            "key_padding_mask",
            "reference_points",
            "spatial_shapes",
            "level_start_index",
        ),
    ),
    "multihead_attention": _module(
        "multihead_attention:build",
        "MultiheadAttentionConfig",
        "04-multihead-attention.md",
        "query",
        "key",
        "value",
        "identity",
        "query_pos",
        "key_pos",
        "attn_mask",
        "key_padding_mask",
    ),
    "self_attention": _module("self_attention:build", "SelfAttentionConfig", "05-self-attention.md", "x"),
    "cross_attention": _module(
        "cross_attention:build", "CrossAttentionConfig", "05-self-attention.md", "query", "key", "value"
    ),
    "feed_forward": _module("feed_forward:build", "FeedForwardConfig", "06-feed-forward.md", "x", "identity"),
    "mlp": _module("mlp:build", "MLPConfig", "06-feed-forward.md", "x"),
    "encoder_layer": _module(
        "transformer_layer:build_encoder_layer",
        "TransformerLayerConfig",
        "07-transformer-layers.md",
        "query",
        "query_pos",
        "attn_mask",
        "query_key_padding_mask",
    ),
    "decoder_layer": _module(
        "transformer_layer:build_decoder_layer",
        "TransformerLayerConfig",
        "07-transformer-layers.md",
        "query",
        "key",
        "query_pos",
        "key_pos",
        "attn_mask",
        "cross_attn_mask",
        "query_key_padding_mask",
        "key_padding_mask",
    ),
    "sine_position_embedding": _function(
        "sine_position_embedding:sine_position_embedding",
        "08-positions.md",
        "mask",
        settings=("num_pos_feats", "temperature", "offset", "normalize", "dtype"),
    ),
    "box_position_embedding": _function(
        "box_position_embedding:box_position_embedding",
        "08-positions.md",
        "boxes",
        settings=("num_pos_feats", "temperature"),
    ),
    "learned_position_embedding": _module(
        "learned_position_embedding:build", "LearnedPositionEmbeddingConfig", "08-positions.md", "mask"
    ),
    "level_position_embedding": _function(
        "level_position_embedding:level_position_embedding",
        "08-positions.md",
        "position_embedding",
        "spatial_shapes",
        "level_embed",
    ),
    "vit": _module("vision_transformer:build", "VisionTransformerConfig", "09-vision-transformer.md", "image"),
}

# What the clauses of chapter 3 are about.
BLOCKS = tuple(name for name, operation in OPERATIONS.items() if EVERY_BLOCK in operation.chapters)

# Named alternatives: the first value is the default.
VARIANTS: dict[str, tuple[str, ...]] = {
    "coordinates": ("float32", "half"),
    "reference_points": ("points and boxes", "boxes"),
    "operation_order": ("any", "post-norm", "pre-norm"),
    "sine_offset": ("any", "0", "-0.5"),
    "num_fcs": ("any", "2"),
}
