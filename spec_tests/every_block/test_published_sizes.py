"""Which sizes the calls of published models reach: every block has one, and none stays within small tables."""

from __future__ import annotations

import pytest

from detr_conformance.harness.case import Case
from detr_conformance.harness.subject import Subject
from detr_conformance.operations import BLOCKS
from detr_conformance.targets.reference import target as reference
from detr_conformance.topics.every_block.cases.published import PUBLISHED

# Chapters 2, 15 to 19 ask for sizes of their own.
ELSEWHERE = {
    "ms_deform_attn_module",
    "detection_losses",
    "postprocess",
    "detr",
    "deformable_detr",
    "dino",
}
WITHOUT_IMAGES = {"generalized_box_iou", "feed_forward", "mlp"}

# Of an argument's axis, how large it is at least in some call.
REACHED = {
    "multihead_attention": (("query", 1, 900), ("query", 2, 256), ("key", 1, 1025)),
    "self_attention": (("x", 1, 1025), ("x", 2, 384)),
    "cross_attention": (("key", 1, 850), ("query", 2, 256)),
    "feed_forward": (("x", 0, 4097), ("x", -1, 256), ("parameter:layers.0.0.weight", 0, 2048)),
    "mlp": (("x", 1, 900), ("x", -1, 512)),
    "encoder_layer": (("query", 1, 425), ("query", 2, 256)),
    "decoder_layer": (("query", 1, 300), ("key", 1, 425), ("query", 2, 256)),
    "sine_position_embedding": (("mask", 2, 2049), ("mask", 1, 1025)),
    "box_position_embedding": (("boxes", 1, 1025),),
    "learned_position_embedding": (("mask", 2, 1025), ("mask", 1, 257)),
    "level_position_embedding": (("position_embedding", 1, 16_385), ("level_embed", 0, 9)),
    "vit": (("image", 2, 224),),
    "valid_ratios": (("mask_l", 2, 2049), ("mask_l", 1, 1025)),
    "encoder_reference_points": (("spatial_shapes", 0, 9),),
    "encoder_proposals": (("memory", 1, 16_385), ("spatial_shapes", 0, 9), ("memory", 2, 256)),
    "select_queries": (("class_logits", 1, 16_385), ("class_logits", 2, 257), ("memory", 2, 257)),
    "refine_boxes": (("delta", 1, 1025), ("delta", 0, 16_385)),
    "dino_decoder": (("query", 1, 1025),),
    "generalized_box_iou": (("boxes1", 0, 2049), ("boxes2", 0, 4097)),
    "sigmoid_focal_loss": (("logits", 1, 16_385), ("logits", 2, 1025)),
}


def cases_of(operation: str) -> list[Case]:
    return list(PUBLISHED[operation].cases(Subject(operation, reference.provides[operation])))


def size(case: Case, name: str, axis: int) -> int:
    shape = case[name].shape if name in case.tensors else ()
    return shape[axis] if -len(shape) <= axis < len(shape) else 0


def test_every_block_is_called_so() -> None:
    assert set(PUBLISHED) == set(BLOCKS) - ELSEWHERE == set(REACHED)


@pytest.mark.parametrize("operation", PUBLISHED)
def test_sizes_beyond_tables_are_reached(operation: str) -> None:
    cases = cases_of(operation)
    for name, axis, least in REACHED[operation]:
        assert max(size(case, name, axis) for case in cases) >= least, (name, axis)
    if operation not in WITHOUT_IMAGES:
        assert (
            max(len(case[next(iter(each for each in case.tensors if each != "spatial_shapes"))]) for case in cases) > 64
        )
