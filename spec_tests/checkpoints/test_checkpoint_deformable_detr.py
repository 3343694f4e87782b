"""The format of fundamentalvision/Deformable-DETR, in its three variants: equal outputs of tiny published models."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from detr_reference.checkpoints import CheckpointError, converted, detect_format
from detr_reference.checkpoints.classes import COCO_IDS
from detr_reference.checkpoints.formats import FORMATS
from detr_reference.detectors.config import DeformableDETRConfig
from detr_reference.detectors.deformable_detr import DeformableDETR, build
from detr_reference.losses.detection_losses import detection_losses, weighted_total
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

VARIANTS = ("deformable_detr", "deformable_detr_refined", "deformable_detr_two_stage")
WEIGHTS = {"loss_class": 2.0, "loss_bbox": 5.0, "loss_giou": 2.0}
LAYER = "transformer.decoder.layers.1"


@pytest.fixture(params=VARIANTS)
def record(request: pytest.FixtureRequest) -> dict[str, Any]:
    return published.load_record(request.param)


def config(record: dict[str, Any], **changes: Any) -> DeformableDETRConfig:
    return dataclasses.replace(config_of(DeformableDETRConfig, record), **changes)


def read(state_dict: dict[str, Tensor], config: DeformableDETRConfig) -> DeformableDETR:
    return build(config, converted(state_dict, build(config)))


def test_outputs_equal_the_published_ones(record: dict[str, Any]) -> None:
    assert distance(record, read(published.state_dict(record), config(record))) < CLOSE


def test_every_tensor_of_the_file_reaches_the_outputs(record: dict[str, Any]) -> None:
    assert unread(read(published.state_dict(record), config(record))) == []


def test_the_format_is_detected(record: dict[str, Any]) -> None:
    assert detect_format(record["parameters"]) == "deformable_detr"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (f"{LAYER}.norm1.", f"{LAYER}.norm2."),
        (f"{LAYER}.norm2.", f"{LAYER}.norm3."),
        ("transformer.encoder.layers.0.norm1.", "transformer.encoder.layers.0.norm2."),
        ("input_proj.2.1.", "input_proj.3.1."),
    ],
)
def test_exchanged_modules_are_noticed(record: dict[str, Any], first: str, second: str) -> None:
    changed = exchanged(published.state_dict(record), first, second)
    assert distance(record, read(changed, config(record))) > 1e-4


def test_counted_operations_are_dropped(record: dict[str, Any]) -> None:
    state = published.state_dict(record)
    counted = {"total_ops": torch.zeros(1), "transformer.encoder.total_params": torch.zeros(1)}
    with_prefix = {**state, **counted}
    assert distance(record, read(with_prefix, config(record))) < CLOSE


def test_copies_of_a_head_must_be_equal() -> None:
    record = published.load_record("deformable_detr_refined")
    state = published.state_dict(record)
    state["transformer.decoder.bbox_embed.1.layers.0.bias"] += 1e-7
    with pytest.raises(CheckpointError, match=r"in conflict: .*decoder\.bbox_embed\.1\.layers\.0\.bias") as caught:
        read(state, config(record))
    assert " bbox_embed.1.layers.0.bias" in str(caught.value)


def test_heads_that_the_model_shares_must_be_equal() -> None:
    record = published.load_record("deformable_detr")
    state = published.state_dict(record)
    state["class_embed.2.bias"] = state["class_embed.2.bias"] + 1e-7
    with pytest.raises(CheckpointError, match=r"class_embed\.2\.bias differs from class_embed\.0\.bias"):
        read(state, config(record))


@pytest.mark.parametrize("variant", ["deformable_detr", "deformable_detr_refined"])
def test_eighty_classes_are_rows_of_ninety_one(variant: str) -> None:
    record = published.load_record(variant)
    everything = predictions(read(published.state_dict(record), config(record)))["pred_logits"]
    few = predictions(read(published.state_dict(record), config(record, num_classes=80)))["pred_logits"]
    torch.testing.assert_close(few, everything[..., list(COCO_IDS)], rtol=0, atol=1e-12)


def test_the_objectness_channel_of_the_first_stage_stays_channel_0() -> None:
    record = published.load_record("deformable_detr_two_stage")
    everything = predictions(read(published.state_dict(record), config(record)))
    few = predictions(read(published.state_dict(record), config(record, num_classes=80)))
    torch.testing.assert_close(few["enc_logits"], everything["enc_logits"][..., :80], rtol=0, atol=1e-12)
    torch.testing.assert_close(few["pred_boxes"], everything["pred_boxes"], rtol=0, atol=1e-12)
    torch.testing.assert_close(few["pred_logits"], everything["pred_logits"][..., list(COCO_IDS)], rtol=0, atol=1e-12)


def losses(outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The first stage is asked for boxes alone: all of them have class 0."""
    return detection_losses(
        outputs["pred_logits"],
        outputs["pred_boxes"],
        *published.joined_targets(91),
        outputs.get("enc_logits"),
        outputs.get("enc_boxes"),
        encoder_targets="objectness",
    )


def test_losses_equal_the_published_ones(record: dict[str, Any]) -> None:
    found = losses(predictions(read(published.state_dict(record), config(record))))
    assert len(found) == (12 if record["config"]["two_stage"] else 9)
    named = {f"criterion/{name.replace('class', 'ce')}": loss for name, loss in found.items()}
    assert max(published.furthest(record, named).values()) < CLOSE


def test_gradients_of_the_total_equal_the_published_ones(record: dict[str, Any]) -> None:
    model = read(published.state_dict(record), config(record, backbone_frozen_stages=0)).eval()
    total = weighted_total(losses(model(*published.images())), WEIGHTS)
    total.backward()
    assert published.furthest(record, {"criterion/total": total})["criterion/total"] < CLOSE
    assert wrong_gradients(record, model, FORMATS["deformable_detr"].table) == []


def test_detections_equal_the_published_ones(record: dict[str, Any]) -> None:
    outputs = predictions(read(published.state_dict(record), config(record)))
    assert distance_of_detections(record, outputs, num_select=100) < CLOSE
