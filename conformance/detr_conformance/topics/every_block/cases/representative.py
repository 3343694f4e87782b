"""A few small but complete cases of each operation: the first one shakes hands, all serve the general clauses."""

from __future__ import annotations

from collections.abc import Callable

from detr_conformance.harness.case import Case
from detr_conformance.harness.subject import Subject
from detr_conformance.topics.attention.cases.multihead_attention import representative_multihead_attention
from detr_conformance.topics.attention.cases.self_attention import (
    representative_cross_attention,
    representative_self_attention,
)
from detr_conformance.topics.deformable_attention.cases.module import representative_ms_deform_attn_module
from detr_conformance.topics.denoising.cases import representative_contrastive_denoising
from detr_conformance.topics.detectors.cases.models import (
    representative_deformable_detr,
    representative_detr,
    representative_dino,
)
from detr_conformance.topics.detectors.cases.postprocess import representative_postprocess
from detr_conformance.topics.features.cases import representative_valid_ratios
from detr_conformance.topics.feed_forward.cases import representative_feed_forward, representative_mlp
from detr_conformance.topics.losses.cases.focal_loss import representative_sigmoid_focal_loss
from detr_conformance.topics.losses.cases.losses import representative_detection_losses
from detr_conformance.topics.losses.cases.matching import representative_hungarian_matching
from detr_conformance.topics.losses.cases.overlap import representative_generalized_box_iou
from detr_conformance.topics.positions.cases import (
    representative_box_position_embedding,
    representative_learned_position_embedding,
    representative_level_position_embedding,
    representative_sine_position_embedding,
)
from detr_conformance.topics.queries.cases.decoder import representative_dino_decoder
from detr_conformance.topics.queries.cases.selection import (
    representative_encoder_proposals,
    representative_encoder_reference_points,
    representative_refine_boxes,
    representative_select_queries,
)
from detr_conformance.topics.transformer.cases import representative_decoder_layer, representative_encoder_layer
from detr_conformance.topics.vision_transformer.cases import representative_vit

REPRESENTATIVE: dict[str, Callable[[Subject], list[Case]]] = {
    "ms_deform_attn_module": representative_ms_deform_attn_module,
    "multihead_attention": representative_multihead_attention,
    "self_attention": representative_self_attention,
    "cross_attention": representative_cross_attention,
    "feed_forward": representative_feed_forward,
    "mlp": representative_mlp,
    "encoder_layer": representative_encoder_layer,
    "decoder_layer": representative_decoder_layer,
    "sine_position_embedding": representative_sine_position_embedding,
    "box_position_embedding": representative_box_position_embedding,
    "learned_position_embedding": representative_learned_position_embedding,
    "level_position_embedding": representative_level_position_embedding,
    "vit": representative_vit,
    "valid_ratios": representative_valid_ratios,
    "encoder_reference_points": representative_encoder_reference_points,
    "encoder_proposals": representative_encoder_proposals,
    "select_queries": representative_select_queries,
    "refine_boxes": representative_refine_boxes,
    "dino_decoder": representative_dino_decoder,
    "contrastive_denoising": representative_contrastive_denoising,
    "generalized_box_iou": representative_generalized_box_iou,
    "sigmoid_focal_loss": representative_sigmoid_focal_loss,
    "hungarian_matching": representative_hungarian_matching,
    "detection_losses": representative_detection_losses,
    "postprocess": representative_postprocess,
    "detr": representative_detr,
    "deformable_detr": representative_deformable_detr,
    "dino": representative_dino,
}


def representative(subject: Subject) -> list[Case]:
    """Cases with every optional input given in at least one, unequal padding, a batch of two or more, H != W."""
    return REPRESENTATIVE[subject.operation](subject)


def one(subject: Subject) -> list[Case]:
    return representative(subject)[:1]
