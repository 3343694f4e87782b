"""The format of facebookresearch/detr: a tiny model of the published code, read by its names, computes the same.

Equal outputs decide, because equal shapes cannot: maps that exchange two norms or attentions of a layer are seen to
fail.
"""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from detr_reference.checkpoints import converted, detect_format
from detr_reference.checkpoints.classes import COCO_IDS
from detr_reference.checkpoints.formats import FORMATS
from detr_reference.detectors.config import DETRConfig
from detr_reference.detectors.detr import DETR, build
from detr_reference.losses.detection_losses import detection_losses, weighted_total
from detr_reference.losses.matching import hungarian_matching
from helpers import published_models as published
from helpers.tiny.checkpoint_cases import (
    CLOSE,
    config_of,
    distance,
    distance_of_detections,
    exchanged,
    predictions,
    unread,
    wrong_gradients,
)

RECORD = published.load_record("detr")
CONFIG: DETRConfig = config_of(DETRConfig, RECORD)
LAYER = "transformer.decoder.layers.1"


def read(state_dict: dict[str, Tensor], config: DETRConfig = CONFIG) -> DETR:
    return build(config, converted(state_dict, build(config)))


def test_outputs_equal_the_published_ones() -> None:
    assert distance(RECORD, read(published.state_dict(RECORD))) < CLOSE


def test_every_tensor_of_the_file_reaches_the_outputs() -> None:
    """But the weights of the first self-attention of the decoder: the queries are zero, and so its values are alike."""
    first = "transformer.decoder.layers.0.attentions.0.in_proj_weight"
    assert unread(read(published.state_dict(RECORD))) == [first]


def test_dilated_outputs_equal_the_published_ones() -> None:
    dilated = dataclasses.replace(CONFIG, backbone_dilation=True)
    boxes = predictions(read(published.state_dict(RECORD), dilated))["pred_boxes"]
    assert max(published.furthest(RECORD, {"dilated_pred_boxes": boxes}).values()) < CLOSE


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (f"{LAYER}.norm1.", f"{LAYER}.norm2."),
        (f"{LAYER}.norm2.", f"{LAYER}.norm3."),
        (f"{LAYER}.self_attn.", f"{LAYER}.multihead_attn."),
        ("transformer.encoder.layers.0.norm1.", "transformer.encoder.layers.0.norm2."),
        ("transformer.encoder.layers.0.", "transformer.encoder.layers.1."),
        ("backbone.0.body.layer2.1.bn1.", "backbone.0.body.layer2.1.bn2."),
        ("bbox_embed.layers.0.", "bbox_embed.layers.1."),
    ],
)
def test_exchanged_modules_are_noticed(first: str, second: str) -> None:
    assert distance(RECORD, read(exchanged(published.state_dict(RECORD), first, second))) > 1e-4


def test_the_format_is_detected() -> None:
    assert detect_format(RECORD["parameters"]) == "detr"


def test_eighty_classes_and_no_object_are_rows_of_ninety_two() -> None:
    everything = predictions(read(published.state_dict(RECORD)))["pred_logits"]
    few = predictions(read(published.state_dict(RECORD), dataclasses.replace(CONFIG, num_classes=80)))["pred_logits"]
    assert few.shape[-1] == 81
    torch.testing.assert_close(few, everything[..., [*COCO_IDS, 91]], rtol=0, atol=1e-12)


def losses(outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return detection_losses(
        outputs["pred_logits"],
        outputs["pred_boxes"],
        *published.joined_targets(91),
        class_loss="cross_entropy",
        cost_class=1.0,
    )


def test_losses_equal_the_published_ones() -> None:
    found = losses(predictions(read(published.state_dict(RECORD))))
    assert len(found) == 9
    named = {f"criterion/{name.replace('class', 'ce')}": loss for name, loss in found.items()}
    assert max(published.furthest(RECORD, named).values()) < CLOSE


def test_gradients_of_the_total_equal_the_published_ones() -> None:
    trained = dataclasses.replace(CONFIG, backbone_frozen_stages=0)
    model = read(published.state_dict(RECORD), trained).eval()
    total = weighted_total(losses(model(*published.images())))
    total.backward()
    assert published.furthest(RECORD, {"criterion/total": total})["criterion/total"] < CLOSE
    assert wrong_gradients(RECORD, model, FORMATS["detr"].table) == []


def test_the_class_loss_of_images_without_boxes_equals_the_published_one() -> None:
    outputs = predictions(read(published.state_dict(RECORD)))
    targets = published.joined_targets(91, counts=(0, 0))
    found = detection_losses(outputs["pred_logits"], outputs["pred_boxes"], *targets, class_loss="cross_entropy")
    expected = published.recorded(RECORD, "criterion_without_boxes/loss_ce")
    torch.testing.assert_close(found["loss_class"].reshape(1), expected, rtol=1e-12, atol=0)


def test_detections_equal_the_published_ones() -> None:
    outputs = predictions(read(published.state_dict(RECORD)))
    assert distance_of_detections(RECORD, outputs, scores="softmax") < CLOSE


def test_the_matching_equals_the_published_one() -> None:
    outputs = predictions(read(published.state_dict(RECORD)))
    last = outputs["pred_logits"][-1], outputs["pred_boxes"][-1]
    pairs = hungarian_matching(*last, *published.joined_targets(91), class_cost="softmax", cost_class=1.0)
    assert pairs["query"].tolist() == RECORD["outputs"]["matched_queries"]
    assert pairs["target"].tolist() == RECORD["outputs"]["matched_targets"]
