"""Overlap, focal loss and post-processing against transformers' own, and a defect of one of its processors."""

from __future__ import annotations

import pytest
import torch

from detr_conformance.running.trial import rejection
from detr_conformance.target import Target
from detr_reference.detectors.postprocess import postprocess
from detr_reference.losses.boxes import box_cxcywh_to_xyxy, generalized_box_iou
from detr_reference.losses.focal_loss import sigmoid_focal_loss

pytest.importorskip("transformers")
overlap = pytest.importorskip("detr_conformance.targets.transformers.overlap")


def test_generalized_iou() -> None:
    first, second = (box_cxcywh_to_xyxy(torch.rand(count, 4, dtype=torch.float64)) for count in (7, 4))
    torch.testing.assert_close(overlap.generalized_box_iou(first, second), generalized_box_iou(first, second))


@pytest.mark.parametrize("family", ["deformable_detr", "grounding_dino"])
def test_focal_loss(family: str) -> None:
    """The mean over queries, times their number, is the sum."""
    logits = 2 * torch.randn(2, 7, 5, dtype=torch.float64)
    targets = (torch.rand(2, 7, 5) < 0.2).double()
    count = torch.tensor(3.0, dtype=torch.float64)
    theirs = overlap.provides(family)["sigmoid_focal_loss"](logits, targets, count, alpha=0.3, gamma=2.0)
    torch.testing.assert_close(theirs, sigmoid_focal_loss(logits, targets, count, alpha=0.3, gamma=2.0))


@pytest.mark.parametrize("family", [name for name, entry in overlap.FAMILIES.items() if entry.processor])
def test_postprocess(family: str) -> None:
    logits, boxes = torch.randn(2, 6, 4), torch.rand(2, 6, 4)
    sizes = torch.tensor([[480, 640], [1333, 800]])
    scores = overlap.FAMILIES[family].scores
    theirs = overlap.provides(family)["postprocess"](logits, boxes, sizes, scores=scores, num_select=6)
    ours = postprocess(logits, boxes, sizes, scores=scores, num_select=6)
    for name, expected in ours.items():
        torch.testing.assert_close(theirs[name], expected)


@pytest.mark.filterwarnings("ignore:Implicit dimension choice for softmax")
def test_softmax_of_rt_detr_is_shared_between_images() -> None:
    target = Target("transformers-rt_detr", overlap.provides_softmax(), variants={"postprocess_scores": "softmax"})
    found = rejection(target, "PP-8")
    assert found is not None
    assert found[0].name == "test_no_object"
    alone = target.provides["postprocess"](
        torch.randn(1, 3, 4), torch.rand(1, 3, 4), torch.tensor([[10, 10]]), scores="softmax"
    )
    assert alone["scores"].eq(1).all()
