"""A few small but complete cases of each operation: the first one shakes hands, all serve the general clauses."""

from __future__ import annotations

from detr_conformance.harness.case import Case
from detr_conformance.harness.subject import Subject
from detr_conformance.operations import resolve

HARNESS = "detr_conformance.harness"
REPRESENTATIVE: dict[str, str] = {
    "ms_deform_attn_module": f"{HARNESS}.module_cases:representative_ms_deform_attn_module",
    "multihead_attention": f"{HARNESS}.attention_cases:representative_multihead_attention",
    "self_attention": f"{HARNESS}.self_attention_cases:representative_self_attention",
    "cross_attention": f"{HARNESS}.self_attention_cases:representative_cross_attention",
    "feed_forward": f"{HARNESS}.feed_forward_cases:representative_feed_forward",
    "mlp": f"{HARNESS}.feed_forward_cases:representative_mlp",
    "encoder_layer": f"{HARNESS}.layer_cases:representative_encoder_layer",
    "decoder_layer": f"{HARNESS}.layer_cases:representative_decoder_layer",
    "sine_position_embedding": f"{HARNESS}.position_cases:representative_sine_position_embedding",
    "box_position_embedding": f"{HARNESS}.position_cases:representative_box_position_embedding",
    "learned_position_embedding": f"{HARNESS}.position_cases:representative_learned_position_embedding",
    "level_position_embedding": f"{HARNESS}.position_cases:representative_level_position_embedding",
    "vit": f"{HARNESS}.vit_cases:representative_vit",
    "valid_ratios": f"{HARNESS}.selection_cases:representative_valid_ratios",
    "encoder_reference_points": f"{HARNESS}.selection_cases:representative_encoder_reference_points",
    "encoder_proposals": f"{HARNESS}.selection_cases:representative_encoder_proposals",
    "select_queries": f"{HARNESS}.selection_cases:representative_select_queries",
    "refine_boxes": f"{HARNESS}.selection_cases:representative_refine_boxes",
    "dino_decoder": f"{HARNESS}.decoder_cases:representative_dino_decoder",
    "contrastive_denoising": f"{HARNESS}.denoising_cases:representative_contrastive_denoising",
    "generalized_box_iou": f"{HARNESS}.overlap_cases:representative_generalized_box_iou",
    "sigmoid_focal_loss": f"{HARNESS}.focal_cases:representative_sigmoid_focal_loss",
    "hungarian_matching": f"{HARNESS}.matching_cases:representative_hungarian_matching",
    "detection_losses": f"{HARNESS}.loss_cases:representative_detection_losses",
    "postprocess": f"{HARNESS}.postprocess_cases:representative_postprocess",
    "detr": f"{HARNESS}.model_cases:representative_detr",
    "deformable_detr": f"{HARNESS}.model_cases:representative_deformable_detr",
    "dino": f"{HARNESS}.model_cases:representative_dino",
}


def representative(subject: Subject) -> list[Case]:
    """Cases with every optional input given in at least one, unequal padding, a batch of two or more, H != W."""
    cases: list[Case] = resolve(REPRESENTATIVE[subject.operation])(subject)
    return cases
