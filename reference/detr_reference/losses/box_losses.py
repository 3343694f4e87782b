"""The box losses, over pairs of a prediction and its target: L1 and generalized IoU.

Source: DETR, arXiv:2005.12872, section 3.1 and appendix A.2; read with facebookresearch/detr, models/detr.py
(`loss_boxes`). Clauses: spec chapter 15.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from detr_reference.losses.boxes import box_cxcywh_to_xyxy, paired_generalized_box_iou


def l1_box_loss(
    boxes: Float[Tensor, "pair 4"], targets: Float[Tensor, "pair 4"], num_boxes: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """sum |cx - cx'| + |cy - cy'| + |w - w'| + |h - h'| / num_boxes, boxes as cxcywh"""
    return (boxes - targets).abs().sum() / num_boxes


def giou_box_loss(
    boxes: Float[Tensor, "pair 4"], targets: Float[Tensor, "pair 4"], num_boxes: Float[Tensor, ""], *, eps: float = 0.0
) -> Float[Tensor, ""]:
    """sum (1 - GIoU) / num_boxes, boxes as cxcywh; eps as in `generalized_box_iou`"""
    giou = paired_generalized_box_iou(box_cxcywh_to_xyxy(boxes), box_cxcywh_to_xyxy(targets), eps=eps)
    return (1 - giou).sum() / num_boxes
