"""Matching and losses equal those of transformers' DETR, Deformable DETR and Grounding DINO, totals included."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from detr_reference.denoising.denoising_pairs import denoising_pairs
from detr_reference.losses.detection_losses import detection_losses, weighted_total
from helpers.tiny.loss_batches import Predictions, Targets, generator_of, predictions_of, targets_of

pytest.importorskip("transformers")

LAYERS, COUNTS = 3, (2, 0, 4)
COSTS = {"class_cost": 2.0, "bbox_cost": 5.0, "giou_cost": 2.0}
COEFFICIENTS = {"bbox_loss_coefficient": 5.0, "giou_loss_coefficient": 2.0, "decoder_layers": LAYERS}


def batch(channels: int) -> tuple[Predictions, Targets]:
    generator = generator_of(channels)
    return predictions_of(generator, LAYERS, len(COUNTS), 7, channels=channels), targets_of(generator, COUNTS, 4)


def annotations(targets: Targets) -> list[dict[str, Tensor]]:
    cut = zip(targets.labels.split(list(COUNTS)), targets.boxes.split(list(COUNTS)), strict=True)
    return [{"class_labels": labels, "boxes": boxes} for labels, boxes in cut]


def published(name: str, predictions: Predictions, targets: Targets, config: SimpleNamespace, **more: Any) -> Any:
    from transformers.loss.loss_utils import LOSS_MAPPING

    logits, boxes = predictions.logits, predictions.boxes
    return LOSS_MAPPING[name](
        logits[-1], annotations(targets), "cpu", boxes[-1], config, outputs_class=logits, outputs_coord=boxes, **more
    )


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    named = {name.replace("loss_ce", "loss_class"): loss for name, loss in theirs.items() if "cardinality" not in name}
    assert set(ours) == set(named)
    for name, loss in ours.items():
        torch.testing.assert_close(loss, named[name], rtol=1e-6, atol=1e-9, msg=name)


def test_detr() -> None:
    """DETR's cross entropy is in float32 there, by the dtype of its class weights."""
    predictions, targets = batch(channels=5)
    predictions = Predictions(*(tensor.float() for tensor in predictions))
    targets = targets._replace(boxes=targets.boxes.float())
    config = SimpleNamespace(**COSTS, **COEFFICIENTS, num_labels=4, eos_coefficient=0.1, auxiliary_loss=True)
    total, losses, _ = published("ForObjectDetection", predictions, targets, config)
    ours = detection_losses(*predictions, *targets, class_loss="cross_entropy")
    assert len(ours) == 3 * LAYERS
    assert_same(ours, losses)
    torch.testing.assert_close(weighted_total(ours), total)


def test_deformable_detr() -> None:
    predictions, targets = batch(channels=4)
    config = SimpleNamespace(**COSTS, **COEFFICIENTS, num_labels=4, focal_alpha=0.25, auxiliary_loss=True)
    total, losses, _ = published("DeformableDetrForObjectDetection", predictions, targets, config)
    ours = detection_losses(*predictions, *targets)
    assert_same(ours, losses)
    torch.testing.assert_close(weighted_total(ours), total, rtol=1e-6, atol=0)


def test_grounding_dino_encoder() -> None:
    """The only criterion there with an encoder loss by classes; each class is one word."""
    predictions, targets = batch(channels=4)
    encoder = predictions_of(generator_of(9), len(COUNTS), 8)
    config = SimpleNamespace(**COSTS, **COEFFICIENTS, focal_alpha=0.25, auxiliary_loss=True, two_stage=True)
    _, losses, _ = published(
        "GroundingDinoForObjectDetection",
        predictions,
        targets,
        config,
        label_maps=(torch.eye(4, dtype=torch.float64),) * len(COUNTS),
        text_mask=torch.ones(len(COUNTS), 1, 4, dtype=torch.bool),
        encoder_logits=encoder.logits,
        encoder_pred_boxes=encoder.boxes,
    )
    assert_same(detection_losses(*predictions, *targets, *encoder), losses)


def test_denoising_pairs_of_rt_detr() -> None:
    """RT-DETR lays its contrastive queries out as DINO does."""
    from transformers.models.rt_detr.modeling_rt_detr import get_contrastive_denoising_training_group

    _, targets = batch(channels=4)
    *_, meta = get_contrastive_denoising_training_group(
        annotations(targets), 4, 7, torch.nn.Embedding(5, 8), num_denoising_queries=9
    )
    slots, _ = meta["dn_num_split"]
    known = denoising_pairs(targets.counts, slots)
    assert known.groups == meta["dn_num_group"] == 2
    for image, positives in enumerate(meta["dn_positive_idx"]):
        assert known.pairs["query"][known.pairs["image"] == image].tolist() == positives.tolist()
