"""The loss that is trained on, and the detections that are evaluated."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detr_reference.detectors.config import DETRConfig, DINOConfig
from detr_reference.losses.detection_losses import detection_losses
from detr_reference.training.learning.models import MODELS, Trainable
from detr_reference.training.learning.objective import detections, loss_of
from helpers.tiny.training_cases import SMALL, small_batch, small_model


def trainable_of(case: str) -> Trainable:
    return MODELS[SMALL[case][0]]


class Planted(nn.Module):
    """Predicts what it is told, whatever the image."""

    def __init__(self, config: Any, **outputs: Tensor) -> None:
        super().__init__()
        self.config, self.outputs = config, outputs

    def forward(self, images: Tensor, mask: Tensor, **targets: Tensor) -> dict[str, Tensor]:
        return self.outputs


# What the spec's table of models says of each (chapter 15).
SETTINGS = {
    "detr": {"class_loss": "cross_entropy", "cost_class": 1.0},
    "dab_detr": {},
    "dn_detr": {"contrastive": False, "padded_slots": "ignored"},
    "deformable_detr": {},
    "two_stage": {"encoder_targets": "objectness"},
    "dino": {},
    "dino_plain": {"contrastive": False},
}


@pytest.mark.parametrize("case", SETTINGS)
def test_the_total_is_the_weighted_sum_of_the_models_losses(case: str) -> None:
    trainable, batch, model = trainable_of(case), small_batch(), small_model(case).train()
    weights = {"loss_class": 2.0 if "deformable" in SMALL[case][0] else 1.0, "loss_bbox": 5.0, "loss_giou": 2.0}
    torch.manual_seed(3)
    total, losses = loss_of(trainable, model, batch)
    torch.manual_seed(3)  # the same noise and dropout
    outputs = model(batch.images, batch.mask, *(batch.targets if trainable.takes_targets else ()))
    expected = detection_losses(
        target_labels=batch.targets.labels,
        target_boxes=batch.targets.boxes,
        target_counts=batch.targets.counts,
        **outputs,
        **SETTINGS[case],
    )
    torch.testing.assert_close(losses, expected, rtol=0, atol=0)
    by_hand = sum(weights["_".join(name.split("_")[:2])] * loss for name, loss in expected.items())
    torch.testing.assert_close(total, by_hand)


@pytest.mark.parametrize("case", SMALL)
def test_every_parameter_that_learns_has_a_gradient(case: str) -> None:
    """Several processes would wait for each other otherwise, as on a batch without boxes."""
    model, names = small_model(case).train(), []
    for counts in ((2, 0, 1), (0, 0)):
        model.zero_grad()
        total, losses = loss_of(trainable_of(case), model, small_batch(counts))
        total.backward()
        assert [name for name, each in model.named_parameters() if each.requires_grad and each.grad is None] == []
        names.append(sorted(losses))
    assert names[0] == names[1]


def test_without_training_there_is_no_denoising() -> None:
    losses = loss_of(MODELS["dino"], small_model("dino").eval(), small_batch())[1]
    assert not [name for name in losses if "_dn" in name]


def test_the_first_stage_of_deformable_detr_learns_what_is_an_object_and_not_its_class() -> None:
    model, batch = small_model("two_stage").eval(), small_batch()
    other = batch._replace(targets=batch.targets._replace(labels=(batch.targets.labels + 1) % 3))
    one, two = (loss_of(MODELS["deformable_detr"], model, each)[1] for each in (batch, other))
    assert torch.equal(one["loss_class_enc"], two["loss_class_enc"])
    assert not torch.equal(one["loss_class"], two["loss_class"])


@pytest.mark.parametrize("case", ["detr", "dino"])
def test_under_autocast_the_model_alone_computes_in_half_precision(case: str) -> None:
    model, batch, seen = small_model(case).eval(), small_batch(), set()
    model.transformer.encoder.layers[0].ffns[0].register_forward_hook(lambda *call: seen.add(call[-1].dtype))
    exact, _ = loss_of(trainable_of(case), model, batch)
    assert seen == {torch.float32}
    seen.clear()
    with torch.no_grad():
        total, losses = loss_of(trainable_of(case), model, batch, autocast=True)
    assert seen == {torch.bfloat16}
    assert {loss.dtype for loss in (total, *losses.values())} == {torch.float32}
    torch.testing.assert_close(total, exact.detach(), rtol=2e-2, atol=0)
    assert total != exact


def test_a_loss_that_is_not_finite_is_named_with_the_images() -> None:
    logits, boxes = torch.zeros(1, 3, 6, 3), torch.full((1, 3, 6, 4), 0.5)
    model = Planted(
        DINOConfig(num_classes=3),
        pred_logits=logits,
        pred_boxes=boxes,
        dn_logits=torch.full((1, 3, 4, 3), torch.nan),
        dn_boxes=boxes[:, :, :4],
    )
    with pytest.raises(ValueError, match=r"^images \[11, 12, 13\]: not finite: loss_class_dn = nan$"):
        loss_of(MODELS["dino"], model, small_batch())


def test_a_prediction_that_is_not_finite_is_named_with_the_images() -> None:
    model = Planted(
        DINOConfig(num_classes=3),
        pred_logits=torch.zeros(1, 3, 6, 3),
        pred_boxes=torch.full((1, 3, 6, 4), torch.nan),
    )
    with pytest.raises(ValueError, match=r"^images \[11, 12, 13\]: no loss_class: .*finite"):
        loss_of(MODELS["dino"], model, small_batch())


def test_detections_are_the_last_layers_on_the_original_images() -> None:
    logits, boxes = torch.full((2, 3, 6, 3), -5.0), torch.rand(2, 3, 6, 4)
    logits[0, :, 0, 0] = 9.0  # an earlier layer
    logits[1, :, 4, 2] = 3.0
    boxes[1, :, 4] = torch.tensor([0.5, 0.25, 0.5, 0.5])
    found = detections(MODELS["dino"], Planted(None, pred_logits=logits, pred_boxes=boxes), small_batch())
    assert [each["image_id"] for each in found] == [11, 12, 13]
    assert [int(each["labels"][0]) for each in found] == [2, 2, 2]
    torch.testing.assert_close(found[2]["scores"][0], torch.tensor(3.0).sigmoid())
    torch.testing.assert_close(found[2]["boxes"][0], torch.tensor([175.0, 0.0, 525.0, 320.0]))  # of 640 x 700
    assert found[0]["boxes"].shape == (18, 4)  # all pairs of 6 queries and 3 classes


@pytest.mark.parametrize(("name", "number"), [("detr", 200), ("deformable_detr", 100), ("dino", 300)])
def test_how_many_detections_an_image_has(name: str, number: int) -> None:
    model = Planted(DETRConfig(), pred_logits=torch.randn(1, 3, 200, 5), pred_boxes=torch.rand(1, 3, 200, 4))
    assert {len(each["scores"]) for each in detections(MODELS[name], model, small_batch())} == {number}


def test_detections_of_a_model_in_half_precision_are_single_precision() -> None:
    half = {"pred_logits": torch.randn(1, 3, 6, 3), "pred_boxes": torch.full((1, 3, 6, 4), 0.3)}
    model = Planted(None, **{name: each.bfloat16() for name, each in half.items()})
    boxes = detections(MODELS["dino"], model, small_batch())[0]["boxes"]
    assert boxes.dtype == torch.float32
    assert boxes[0, 2] == half["pred_boxes"].bfloat16().float()[0, 0, 0, 0] * 1.5 * 960  # not rounded again
