"""The operations a target may provide, and the variants it may declare. Plain data, no torch."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

EVERY_BLOCK = "03-every-block.md"
EVERY_DTYPE = ("float64", "float32", "float16", "bfloat16")
FULL_PRECISION = EVERY_DTYPE[:2]


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
        constants: floating inputs of which no gradient is asked.
        exempt: clauses of chapter 3 that do not apply, because the images of a batch belong together (BLK-17) or a part
            of it is no torch (BLK-15, BLK-16).
        image_axis: the axis of the images in every output; 1 where layers come first.
        dtypes: the claimed dtypes in which it is judged; half precision is none for what selects and then computes on.
    """

    kind: str
    arguments: tuple[str, ...]
    reference: str
    chapters: tuple[str, ...]
    config: str | None = None
    inputs: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    constants: tuple[str, ...] = ()
    exempt: tuple[str, ...] = ()
    image_axis: int = 0
    dtypes: tuple[str, ...] = EVERY_DTYPE

    @property
    def topic(self) -> str:
        """The folder that it has in every room."""
        return self.reference.split(".")[1]


def resolve(path: str) -> Any:
    """What "module:attribute" names, imported now."""
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _function(
    reference: str,
    chapter: str,
    inputs: str,
    *,
    settings: str = "",
    constants: str = "",
    exempt: tuple[str, ...] = (),
    block: bool = True,
) -> Operation:
    names = tuple(inputs.split())
    return Operation(
        "function",
        names,
        reference,
        (chapter, EVERY_BLOCK) if block else (chapter,),
        inputs=names,
        settings=tuple(settings.split()),
        constants=tuple(constants.split()),
        exempt=exempt,
    )


def _module(
    reference: str,
    config: str,
    chapter: str,
    inputs: str,
    *,
    constants: str = "",
    exempt: tuple[str, ...] = (),
    image_axis: int = 0,
    dtypes: tuple[str, ...] = EVERY_DTYPE,
) -> Operation:
    return Operation(
        "module",
        ("config", "state_dict"),
        reference,
        (chapter, EVERY_BLOCK),
        config=config,
        inputs=tuple(inputs.split()),
        constants=tuple(constants.split()),
        exempt=exempt,
        image_axis=image_axis,
        dtypes=dtypes,
    )


TOGETHER = ("BLK-17",)  # the images of a batch are one call
NOT_TORCH = ("BLK-15", "BLK-16")  # scipy assigns
SELECTS = ("BLK-14",)  # in half precision other queries may be selected, and nothing can be compared


OPERATIONS: dict[str, Operation] = {
    "ms_deform_attn": _function(
        "detr_reference.deformable_attention.core:ms_deform_attn",
        "01-deformable-attention.md",
        "value spatial_shapes level_start_index sampling_locations attention_weights",
        block=False,
    ),
    "ms_deform_attn_module": _module(
        "detr_reference.deformable_attention.module:build",
        "detr_reference.deformable_attention.config:MSDeformAttnConfig",
        "02-deformable-attention-module.md",
        "query value identity query_pos key_padding_mask reference_points spatial_shapes level_start_index",
    ),
    "multihead_attention": _module(
        "detr_reference.attention.multihead_attention:build",
        "detr_reference.attention.config:MultiheadAttentionConfig",
        "04-multihead-attention.md",
        "query key value identity query_pos key_pos attn_mask key_padding_mask",
    ),
    "self_attention": _module(
        "detr_reference.attention.self_attention:build",
        "detr_reference.attention.config:SelfAttentionConfig",
        "05-self-attention.md",
        "x",
    ),
    "cross_attention": _module(
        "detr_reference.attention.cross_attention:build",
        "detr_reference.attention.config:CrossAttentionConfig",
        "05-self-attention.md",
        "query key value",
    ),
    "feed_forward": _module(
        "detr_reference.feed_forward.feed_forward:build",
        "detr_reference.feed_forward.config:FeedForwardConfig",
        "06-feed-forward.md",
        "x identity",
    ),
    "mlp": _module(
        "detr_reference.feed_forward.mlp:build",
        "detr_reference.feed_forward.config:MLPConfig",
        "06-feed-forward.md",
        "x",
    ),
    "encoder_layer": _module(
        "detr_reference.transformer.layer:build_encoder_layer",
        "detr_reference.transformer.config:TransformerLayerConfig",
        "07-transformer-layers.md",
        "query query_pos attn_mask query_key_padding_mask",
    ),
    "decoder_layer": _module(
        "detr_reference.transformer.layer:build_decoder_layer",
        "detr_reference.transformer.config:TransformerLayerConfig",
        "07-transformer-layers.md",
        "query key query_pos key_pos attn_mask cross_attn_mask query_key_padding_mask key_padding_mask",
    ),
    "sine_position_embedding": _function(
        "detr_reference.positions.sine_position_embedding:sine_position_embedding",
        "08-positions.md",
        "mask",
        settings="num_pos_feats temperature offset normalize dtype",
    ),
    "box_position_embedding": _function(
        "detr_reference.positions.box_position_embedding:box_position_embedding",
        "08-positions.md",
        "boxes",
        settings="num_pos_feats temperature",
    ),
    "learned_position_embedding": _module(
        "detr_reference.positions.learned_position_embedding:build",
        "detr_reference.positions.config:LearnedPositionEmbeddingConfig",
        "08-positions.md",
        "mask",
    ),
    "level_position_embedding": _function(
        "detr_reference.positions.level_position_embedding:level_position_embedding",
        "08-positions.md",
        "position_embedding spatial_shapes level_embed",
    ),
    "vit": _module(
        "detr_reference.vision_transformer.vit:build",
        "detr_reference.vision_transformer.config:VisionTransformerConfig",
        "09-vision-transformer.md",
        "image",
    ),
    "valid_ratios": _function(
        "detr_reference.features.valid_ratios:valid_ratios", "11-queries-from-memory.md", "mask_l", settings="dtype"
    ),
    "encoder_reference_points": _function(
        "detr_reference.queries.reference_points:encoder_reference_points",
        "11-queries-from-memory.md",
        "spatial_shapes valid_ratios",
        constants="valid_ratios",
    ),
    "encoder_proposals": _function(
        "detr_reference.queries.two_stage_proposals:encoder_proposals",
        "11-queries-from-memory.md",
        "memory memory_key_padding_mask spatial_shapes",
    ),
    "select_queries": _function(
        "detr_reference.queries.query_selection:select_queries",
        "11-queries-from-memory.md",
        "class_logits proposals memory",
        settings="num_queries score",
    ),
    "refine_boxes": _function(
        "detr_reference.queries.box_refinement:refine_boxes",
        "11-queries-from-memory.md",
        "delta reference",
        settings="eps",
    ),
    "dino_decoder": _module(
        "detr_reference.queries.dino_decoder:build",
        "detr_reference.queries.config:DINODecoderConfig",
        "12-dino-decoder.md",
        "query memory reference_points attn_mask key_padding_mask spatial_shapes level_start_index valid_ratios",
        constants="valid_ratios",
        image_axis=1,
    ),
    "contrastive_denoising": _function(
        "detr_reference.denoising.contrastive_denoising:contrastive_denoising",
        "13-contrastive-denoising.md",
        "target_labels target_boxes target_counts label_embedding",
        settings="num_queries denoising_number label_noise_ratio box_noise_scale",
        block=False,  # random
    ),
    "generalized_box_iou": _function(
        "detr_reference.losses.boxes:generalized_box_iou",
        "14-overlap-and-focal-loss.md",
        "boxes1 boxes2",
        settings="eps",
        exempt=TOGETHER,
    ),
    "sigmoid_focal_loss": _function(
        "detr_reference.losses.focal_loss:sigmoid_focal_loss",
        "14-overlap-and-focal-loss.md",
        "logits targets num_boxes",
        settings="alpha gamma",
        constants="targets num_boxes",
        exempt=TOGETHER,
    ),
    "hungarian_matching": _function(
        "detr_reference.losses.matching:hungarian_matching",
        "15-matching-and-losses.md",
        "pred_logits pred_boxes target_labels target_boxes target_counts",
        settings="class_cost cost_class cost_bbox cost_giou alpha gamma giou_eps",
        block=False,  # it returns indices alone
    ),
    "detection_losses": _function(
        "detr_reference.losses.detection_losses:detection_losses",
        "15-matching-and-losses.md",
        "pred_logits pred_boxes target_labels target_boxes target_counts enc_logits enc_boxes dn_logits dn_boxes",
        settings="class_loss alpha gamma no_object_weight cost_class cost_bbox cost_giou giou_eps "
        "encoder_targets contrastive padded_slots",
        constants="target_boxes",
        exempt=TOGETHER + NOT_TORCH,
    ),
    "postprocess": _function(
        "detr_reference.detectors.postprocess:postprocess",
        "16-post-processing.md",
        "pred_logits pred_boxes sizes",
        settings="scores num_select",
        constants="pred_logits pred_boxes",  # nobody trains through it
    ),
    "detr": _module(
        "detr_reference.detectors.detr:build",
        "detr_reference.detectors.config:DETRConfig",
        "17-detr.md",
        "images mask",
        image_axis=1,
        dtypes=FULL_PRECISION,
    ),
    "deformable_detr": _module(
        "detr_reference.detectors.deformable_detr:build",
        "detr_reference.detectors.config:DeformableDETRConfig",
        "18-deformable-detr.md",
        "images mask",
        exempt=SELECTS,
        image_axis=1,
        dtypes=FULL_PRECISION,
    ),
    "dino": _module(
        "detr_reference.detectors.dino:build",
        "detr_reference.detectors.config:DINOConfig",
        "19-dino.md",
        "images mask target_labels target_boxes target_counts",
        constants="target_boxes",
        exempt=SELECTS,
        image_axis=1,
        dtypes=FULL_PRECISION,
    ),
}

# What the clauses of chapter 3 are about.
BLOCKS = tuple(name for name, operation in OPERATIONS.items() if EVERY_BLOCK in operation.chapters)

# What the profile "training" is about, and the chapter of its clauses.
TRAINED = ("ms_deform_attn", "detr", "deformable_detr", "dino")
TRAINING_CHAPTER = "21-training.md"

# Named alternatives: the first value is the default.
VARIANTS: dict[str, tuple[str, ...]] = {
    "coordinates": ("float32", "half"),
    "reference_points": ("points and boxes", "boxes"),
    "padding": ("mask", "none"),
    "operation_order": ("any", "post-norm", "pre-norm"),
    "sine_offset": ("any", "0", "-0.5"),
    "num_fcs": ("any", "2"),
    "heads": ("any", "separate", "shared"),
    "look_forward": ("any", "twice", "once"),
    "embedded_references": ("any", "scaled", "plain"),
    "query_selection": ("any", "mixed"),
    "denoising": ("any", "contrastive"),
    "dilation": ("any", "none"),
    "denoising_eps": ("1e-3", "1e-5"),
    "giou_eps": ("0", "1e-6"),
    "class_loss": ("any", "focal", "cross_entropy"),
    "loss_sets": ("all", "decoder"),
    "postprocess_scores": ("any", "sigmoid", "softmax"),
    "num_select": ("any", "queries"),
}
