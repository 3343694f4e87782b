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
}


def representative(subject: Subject) -> list[Case]:
    """Cases with every optional input given in at least one, unequal padding, a batch of two or more, H != W."""
    cases: list[Case] = resolve(REPRESENTATIVE[subject.operation])(subject)
    return cases
