"""The models that can be trained: how they are made, and that their numbers are those of the published trainings."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from detr_reference.deformable_attention.core import ms_deform_attn
from detr_reference.training.learning.models import MODELS, make_model
from helpers.tiny.training_cases import SMALL, small_batch, small_model

# Class weight in the loss, class cost in the matching, detections an image; main.py or configuration of each.
PUBLISHED = {
    "detr": (1, 1, None),
    "dab_detr": (1, 2, 300),
    "dn_detr": (1, 2, 300),
    "deformable_detr": (2, 2, 100),
    "dino": (1, 2, 300),
}


@pytest.mark.parametrize("name", MODELS)
def test_numbers_are_those_of_the_published_training(name: str) -> None:
    trainable = MODELS[name]
    class_weight, class_cost, detections = PUBLISHED[name]
    assert dict(trainable.weights) == {"loss_class": class_weight, "loss_bbox": 5, "loss_giou": 2}
    assert trainable.losses(trainable.config()).get("cost_class", 2) == class_cost
    assert (trainable.num_select if trainable.scores == "sigmoid" else None) == detections


@pytest.mark.parametrize("case", ["detr", "dino"])
def test_a_model_predicts_the_classes_that_are_asked_for(case: str) -> None:
    batch = small_batch()
    outputs = small_model(case).eval()(batch.images, batch.mask)
    classes = 4 if case == "detr" else 3  # no object is a class of its own
    assert outputs["pred_logits"].shape == (2, 3, 6, classes)


def test_lists_are_taken_for_tuples() -> None:
    assert small_model("dino", backbone_blocks=[1, 2, 1, 1]).config.backbone_blocks == (1, 2, 1, 1)


@pytest.mark.parametrize("case", ["deformable_detr", "dino"])
def test_a_users_core_is_the_one_that_samples(case: str) -> None:
    calls = []

    def core(*arguments: torch.Tensor) -> torch.Tensor:
        calls.append(len(arguments))
        return ms_deform_attn(*arguments)

    name, settings = SMALL[case]
    batch = small_batch()
    make_model(name, settings, core=core).eval()(batch.images, batch.mask)
    assert calls == [5] * 4  # two encoder and two decoder layers


def test_a_model_without_deformable_attention_refuses_a_core() -> None:
    with pytest.raises(ValueError, match=r"detr has no deformable attention.*deformable_detr, dino"):
        make_model("detr", {}, core=ms_deform_attn)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("dimo", {}, r"no model 'dimo'; did you mean dino\?"),
        ("yolo", {}, r"known are detr, dab_detr, dn_detr, deformable_detr, dino"),
        ("dino", {"num_querys": 3}, r"model\.num_querys is unknown; did you mean num_queries"),
        ("dino", {"num_queries": 3.5}, r"model\.num_queries must be a whole number, got 3\.5"),
        ("dino", {"num_queries": True}, r"model\.num_queries must be a whole number, got True"),
        ("dino", {"look_forward_twice": 1}, r"model\.look_forward_twice must be true or false, got 1"),
        ("dino", {"backbone_blocks": 3}, r"model\.backbone_blocks must be a list, got 3"),
        ("dino", {"backbone_blocks": [1, 1, 1, "1"]}, r"model\.backbone_blocks\[3\] must be a whole number, got '1'"),
        ("dino", {"denoising": "much"}, r"model: denoising must be one of contrastive, plain, none, got 'much'"),
        ("dino", {"dropout": float("nan")}, r"model\.dropout must be finite"),
    ],
)
def test_a_mistake_is_named(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_model(name, settings)
