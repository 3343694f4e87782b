"""Bipartite matching: which prediction answers for which box.

Source: DETR, arXiv:2005.12872, section 3.1; the focal class cost from Deformable DETR, arXiv:2010.04159, appendix A.4.
Read with facebookresearch/detr, models/matcher.py, and IDEA-Research/DINO, models/dino/matcher.py. Clauses: spec
chapter 15.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from detr_reference.losses.batch_targets import BatchTargets, batch_targets
from detr_reference.losses.boxes import box_cxcywh_to_xyxy, generalized_box_iou

CLASS_COSTS = ("focal", "softmax")
EPS = 1e-8  # inside the logarithms of the focal cost


@torch.no_grad()
def hungarian_matching(
    pred_logits: Float[Tensor, "batch query class"],
    pred_boxes: Float[Tensor, "batch query 4"],
    target_labels: Int[Tensor, " box"],
    target_boxes: Float[Tensor, "box 4"],
    target_counts: Int[Tensor, " batch"],
    *,
    class_cost: str = "focal",
    cost_class: float = 2.0,
    cost_bbox: float = 5.0,
    cost_giou: float = 2.0,
    alpha: float = 0.25,
    gamma: float = 2.0,
    giou_eps: float = 0.0,
) -> dict[str, Int[Tensor, " pair"]]:
    """argmin over one-to-one pairs of sum C[query, target], image by image

    C = cost_class * class cost + cost_bbox * L1 of cxcywh + cost_giou * (-GIoU), without gradients

    Args:
        pred_logits: before sigmoid or softmax; of a softmax the last class is "no object".
        pred_boxes: cxcywh, relative to the image.
        target_labels, target_boxes, target_counts: see `BatchTargets`.
        class_cost: "focal" (Deformable DETR, DINO) or "softmax" (DETR).
        cost_class, cost_bbox, cost_giou: weights of the three costs; DETR has 1, 5, 2.
        alpha, gamma: of the focal cost.
        giou_eps: of the GIoU, see `generalized_box_iou`.

    Returns:
        "image", "query" and "target", int64, ordered by image and query; target is an index within its image. Each
        image has min(queries, boxes) pairs.

    Raises:
        ValueError: a prediction is NaN or infinite (the message names image and query), targets and predictions do not
            fit, or class_cost is unknown.
        TypeError: labels or counts are not int64.
    """
    if class_cost not in CLASS_COSTS:
        raise ValueError(f"class_cost must be one of {CLASS_COSTS}, got {class_cost!r}")
    _check_predictions(pred_logits, pred_boxes)
    batch, _, num_classes = pred_logits.shape
    targets = batch_targets(target_labels, target_boxes, target_counts, batch=batch, num_classes=num_classes)
    wide = torch.promote_types(pred_logits.dtype, torch.float32)
    logits, boxes = pred_logits.to(wide), pred_boxes.to(wide)
    class_costs = focal_class_cost(logits, alpha, gamma) if class_cost == "focal" else -logits.softmax(-1)

    # Every query against every box of the batch: few large operations; of each image only its own boxes are used.
    costs = (
        cost_class * class_costs.flatten(0, 1)[:, targets.labels]
        + cost_bbox * l1_cost(boxes.flatten(0, 1), targets.boxes.to(wide))
        + cost_giou * giou_cost(boxes.flatten(0, 1), targets.boxes.to(wide), giou_eps)
    ).unflatten(0, (batch, -1))
    own_costs = costs.split(targets.counts.tolist(), dim=-1)
    pairs = [_cheapest_pairs(image, own[image]) for image, own in enumerate(own_costs)]
    return {
        "image": torch.cat([torch.full_like(query, image) for image, (query, _) in enumerate(pairs)]),
        "query": torch.cat([query for query, _ in pairs]),
        "target": torch.cat([target for _, target in pairs]),
    }


def focal_class_cost(
    logits: Float[Tensor, "*query class"], alpha: float = 0.25, gamma: float = 2.0
) -> Float[Tensor, "*query class"]:
    """alpha q^gamma (-log p) - (1 - alpha) p^gamma (-log q),  p = sigmoid(logit), q = 1 - p

    What the focal loss of a class would change by if the query were made its positive. 1e-8 is added inside both
    logarithms. q is computed as sigmoid(-logit), since 1 - p is only rounding errors where p is near 1.
    """
    p, q = logits.sigmoid(), (-logits).sigmoid()
    positive = alpha * q**gamma * -(p + EPS).log()
    negative = (1 - alpha) * p**gamma * -(q + EPS).log()
    return positive - negative


def l1_cost(boxes: Float[Tensor, "query 4"], targets: Float[Tensor, "target 4"]) -> Float[Tensor, "query target"]:
    """|cx - cx'| + |cy - cy'| + |w - w'| + |h - h'|"""
    return (boxes[:, None] - targets).abs().sum(-1)


def giou_cost(
    boxes: Float[Tensor, "query 4"], targets: Float[Tensor, "target 4"], eps: float = 0.0
) -> Float[Tensor, "query target"]:
    """-GIoU"""
    return -generalized_box_iou(box_cxcywh_to_xyxy(boxes), box_cxcywh_to_xyxy(targets), eps=eps)


def matched_targets(pairs: dict[str, Int[Tensor, " pair"]], targets: BatchTargets) -> Int[Tensor, " pair"]:
    """The index of each pair's target among the boxes of the whole batch."""
    return targets.starts[pairs["image"]] + pairs["target"]


def _cheapest_pairs(image: int, cost: Float[Tensor, "query target"]) -> tuple[Tensor, Tensor]:
    if not cost.isfinite().all():
        query, target = (~cost.isfinite()).nonzero()[0].tolist()
        raise ValueError(
            f"the cost of query {query} and target {target} of image {image} is {float(cost[query, target])}; "
            "is the target's box finite?"
        )
    query, target = linear_sum_assignment(cost.cpu().numpy())
    return torch.as_tensor(query, device=cost.device), torch.as_tensor(target, device=cost.device)


def _check_predictions(pred_logits: Tensor, pred_boxes: Tensor) -> None:
    if pred_logits.ndim != 3 or pred_boxes.shape != (*pred_logits.shape[:2], 4):
        raise ValueError(
            "pred_logits must be (batch, query, class) and pred_boxes (batch, query, 4), "
            f"got {tuple(pred_logits.shape)} and {tuple(pred_boxes.shape)}"
        )
    for name, values in (("pred_logits", pred_logits), ("pred_boxes", pred_boxes)):
        broken = ~values.isfinite().all(-1)
        if broken.any():
            image, query = broken.nonzero()[0].tolist()
            raise ValueError(
                f"{name} of image {image}, query {query} are not finite: {values[image, query].tolist()}; "
                f"{int(broken.sum())} of {broken.numel()} queries are affected"
            )
