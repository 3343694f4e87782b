"""Defects of public criteria that chapter 15 or an adapter tells of."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from detr_conformance.running.trial import rejection
from detr_conformance.target import Target

pytest.importorskip("transformers")

COSTS = {"class_cost": 2.0, "bbox_cost": 5.0, "giou_cost": 2.0}


def grounding_dino(
    spare: int,
    pred_logits: Tensor,
    pred_boxes: Tensor,
    labels: Tensor,
    boxes: Tensor,
    counts: Tensor,
    **settings: Any,
) -> dict[str, Tensor]:
    """Grounding DINO's criterion of transformers, for the last layer; image i has i * spare classes more in its prompt.

    No box is of these classes, and no word belongs to them, so that the losses should be the same.
    """
    from transformers.loss.loss_grounding_dino import GroundingDinoHungarianMatcher, GroundingDinoImageLoss

    logits, classes = pred_logits[-1], pred_logits.shape[-1]
    words = torch.eye(classes, dtype=logits.dtype)
    outputs = {
        "logits": logits,
        "pred_boxes": pred_boxes[-1],
        "label_maps": tuple(torch.cat((words, words.new_zeros(i * spare, classes))) for i in range(len(logits))),
        "text_mask": torch.ones_like(logits, dtype=torch.bool),
    }
    cut = zip(labels.split(counts.tolist()), boxes.split(counts.tolist()), strict=True)
    targets = [{"class_labels": own_labels, "boxes": own_boxes} for own_labels, own_boxes in cut]
    criterion = GroundingDinoImageLoss(GroundingDinoHungarianMatcher(**COSTS), 0.25, ["labels", "boxes"])
    return {name.replace("ce", "class"): loss for name, loss in criterion(outputs, targets).items()}


@pytest.mark.parametrize(("spare", "right"), [(0, True), (2, False)])
def test_labels_of_unlike_prompts(spare: int, right: bool) -> None:
    """The offset of an image's classes is the size of its own label map, where it should be that of those before it."""
    target = Target(
        "grounding_dino",
        {"detection_losses": partial(grounding_dino, spare)},
        dtypes=("float32",),
        variants={"class_loss": "focal", "loss_sets": "decoder"},
    )
    assert (rejection(target, "LOSS-2") is None) == right


def test_unused_losses_of_rt_detr() -> None:
    """The focal loss gets alpha for the number of boxes and averages a scalar; the cross entropy has no weights."""
    from transformers.loss.loss_rt_detr import RTDetrLoss

    settings = {f"matcher_{name}": value for name, value in COSTS.items()}
    settings |= {"matcher_alpha": 0.25, "matcher_gamma": 2.0, "use_focal_loss": True, "num_labels": 4}
    settings |= dict.fromkeys(("weight_loss_vfl", "weight_loss_bbox", "weight_loss_giou"), 1.0)
    settings |= {"eos_coefficient": 0.1, "focal_loss_alpha": 0.25, "focal_loss_gamma": 2.0}
    criterion = RTDetrLoss(SimpleNamespace(**settings))
    outputs = {"logits": torch.randn(1, 3, 4)}
    targets = [{"class_labels": torch.tensor([1])}]
    pairs = [(torch.tensor([2]), torch.tensor([0]))]
    with pytest.raises((IndexError, RuntimeError)):
        criterion.get_loss("focal", outputs, targets, pairs, 1)
    with pytest.raises(AttributeError, match="class_weight"):
        criterion.get_loss("labels", outputs, targets, pairs, 1)
