"""The formats of DINO and of detrex's DINO, and DINO's arithmetic stage by stage, against the published code."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from detr_reference.checkpoints import CheckpointError, converted, detect_format
from detr_reference.checkpoints.classes import COCO_IDS
from detr_reference.checkpoints.formats import FORMATS
from detr_reference.detectors import dino
from detr_reference.detectors.config import DINOConfig
from detr_reference.detectors.dino import DINO, build
from detr_reference.losses.detection_losses import detection_losses, weighted_total
from helpers import published_models as published
from helpers.dino_stages import fix_the_noise, stages
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

FORMAT_NAMES = ("dino", "detrex_dino")

# With detrex's offset of -0.5 the position of a padded cell is a sine of about 3e6, where a unit round-off is 5e-10.
PADDED_CELLS_CLOSE = 2e-9
WITH_PADDED_CELLS = ("encoder_layer_0", "encoder_layer_1", "memory")


@pytest.fixture(params=FORMAT_NAMES)
def record(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {"name": request.param, **published.load_record(request.param)}


def config(record: dict[str, Any], **changes: Any) -> DINOConfig:
    return dataclasses.replace(config_of(DINOConfig, record), **changes)


def read(state_dict: dict[str, Tensor], config: DINOConfig) -> DINO:
    return build(config, converted(state_dict, build(config)))


def test_outputs_equal_the_published_ones(record: dict[str, Any]) -> None:
    assert distance(record, read(published.state_dict(record), config(record))) < CLOSE


def test_every_stage_equals_the_published_one(record: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    found = stages(read(published.state_dict(record), config(record)), monkeypatch)
    if record["name"] == "detrex_dino":  # it lists the references of the layers alone, and keeps no proposals' memory
        found["references"] = found["references"][1:]
        del found["proposal_memory"]
    distances = published.furthest(record, found)
    assert len(distances) >= 19
    limits = dict.fromkeys(distances, CLOSE)
    if record["name"] == "detrex_dino":
        limits |= dict.fromkeys(WITH_PADDED_CELLS, PADDED_CELLS_CLOSE)
    assert {name: far for name, far in distances.items() if far >= limits[name]} == {}


def in_training(
    record: dict[str, Any], monkeypatch: pytest.MonkeyPatch, **changes: Any
) -> tuple[DINO, dict[str, Tensor]]:
    """The model, all of whose parameters are trained, and what it gives out with the recorded noise."""
    settings = config(record, backbone_frozen_stages=0, **changes)
    model = read(published.state_dict(record), settings).train()
    labels, boxes, counts = published.joined_targets(settings.num_classes)
    fix_the_noise(monkeypatch, counts.tolist(), record["denoising_groups"], settings.num_classes)
    outputs = model(*published.images(), labels, boxes, counts)
    monkeypatch.undo()
    return model, outputs


def losses(outputs: dict[str, Tensor], num_classes: int) -> dict[str, Tensor]:
    targets = published.joined_targets(num_classes)
    return detection_losses(
        outputs["pred_logits"],
        outputs["pred_boxes"],
        *targets,
        outputs["enc_logits"],
        outputs["enc_boxes"],
        outputs["dn_logits"],
        outputs["dn_boxes"],
        giou_eps=1e-6,
    )


def test_denoising_queries_of_the_same_noise_equal_the_published_ones(
    record: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Tensor] = {}
    actual = dino.contrastive_denoising
    monkeypatch.setattr(dino, "contrastive_denoising", lambda *a, **k: given.update(actual(*a, **k)) or given)
    in_training(record, monkeypatch)
    found = {f"denoising/{name}": tensor.double() for name, tensor in given.items()}
    assert len(found) == 3
    assert max(published.furthest(record, found).values()) < CLOSE


def test_predictions_in_training_equal_the_published_ones(
    record: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, outputs = in_training(record, monkeypatch)
    found = {f"training/{name}": outputs[name] for name in ("pred_logits", "pred_boxes")}
    found |= {name: outputs[name] for name in ("dn_logits", "dn_boxes", "enc_logits", "enc_boxes")}
    assert max(published.furthest(record, found).values()) < CLOSE


def test_losses_equal_the_published_ones(record: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    _, outputs = in_training(record, monkeypatch)
    found = losses(outputs, record["config"]["num_classes"])
    names = {name: name if record["name"] == "detrex_dino" else original_loss(name) for name in found}
    distances = published.furthest(record, {f"criterion/{names[name]}": loss for name, loss in found.items()})
    assert len(distances) == 21
    assert max(distances.values()) < CLOSE
    assert published.furthest(record, {"criterion/total": weighted_total(found)})["criterion/total"] < CLOSE


def original_loss(name: str) -> str:
    """The original's name of a loss."""
    return name.replace("loss_class", "loss_ce").replace("_enc", "_interm")


def test_gradients_of_the_total_equal_the_published_ones(
    record: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, outputs = in_training(record, monkeypatch)
    weighted_total(losses(outputs, record["config"]["num_classes"])).backward()
    assert wrong_gradients(record, model, FORMATS[record["name"]].table) == []


def test_gradients_tell_whether_a_prediction_looks_forward_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which no output does."""
    record = {"name": "dino", **published.load_record("dino")}
    model, outputs = in_training(record, monkeypatch, look_forward_twice=False)
    found = losses(outputs, record["config"]["num_classes"])
    assert published.furthest(record, {"criterion/total": weighted_total(found)})["criterion/total"] < CLOSE
    weighted_total(found).backward()
    wrong = wrong_gradients(record, model, FORMATS["dino"].table)
    assert any(line.startswith("transformer.decoder.bbox_embed.0.layers.0.weight: ") for line in wrong)


def test_every_tensor_of_the_file_reaches_the_outputs(record: dict[str, Any]) -> None:
    """But the label embedding, which denoising alone reads."""
    assert unread(read(published.state_dict(record), config(record))) == ["label_enc.weight"]


def test_the_format_is_detected(record: dict[str, Any]) -> None:
    assert detect_format(record["parameters"]) == record["name"]


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("dino", "norm1.", "norm2."),
        ("dino", "norm2.", "norm3."),
        ("detrex_dino", "norms.0.", "norms.1."),
        ("detrex_dino", "norms.1.", "norms.2."),
    ],
)
def test_exchanged_norms_are_noticed(name: str, first: str, second: str) -> None:
    record = published.load_record(name)
    layer = "transformer.decoder.layers.1."
    changed = exchanged(published.state_dict(record), layer + first, layer + second)
    assert distance(record, read(changed, config(record))) > 1e-4


@pytest.mark.parametrize("copy", ["class_embed.1.bias", "transformer.decoder.class_embed.0.bias"])
def test_copies_of_a_head_must_be_equal(record: dict[str, Any], copy: str) -> None:
    state = published.state_dict(record)
    state[copy] = state[copy] + 1e-7
    with pytest.raises(CheckpointError, match="in conflict: ") as caught:
        read(state, config(record))
    assert copy in str(caught.value)


def test_eighty_classes_are_rows_of_ninety_one() -> None:
    record = published.load_record("dino")
    state = published.state_dict(record)
    everything = read(state, config(record))
    few = read(state, config(record, num_classes=80, label_embedding_size=None))
    torch.testing.assert_close(few.label_enc.weight, everything.label_enc.weight[list(COCO_IDS)], rtol=0, atol=0)
    last = "class_embed.1.weight"
    torch.testing.assert_close(few.state_dict()[last], everything.state_dict()[last][list(COCO_IDS)], rtol=0, atol=0)
    assert predictions(few)["pred_logits"].shape[-1] == 80


def test_a_model_with_separate_heads_reads_shared_ones() -> None:
    record = published.load_record("dino")
    assert distance(record, read(published.state_dict(record), config(record, shared_heads=False))) < CLOSE


def test_detections_equal_the_published_ones() -> None:
    record = published.load_record("dino")
    outputs = predictions(read(published.state_dict(record), config(record)))
    assert distance_of_detections(record, outputs, num_select=300) < CLOSE
