"""Post-processing: from the logits and boxes of queries to detections on the original image.

No non-maximum suppression: one query an object is what the matching of training has taught.

Source: DETR, arXiv:2005.12872, models/detr.py (`PostProcess`, softmax); Deformable DETR, models/deformable_detr.py
(`PostProcess`, sigmoid, 100 detections), and IDEA-Research/DINO, models/dino/dino.py (the same with 300). Clauses:
spec chapter 16.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from detr_reference.losses.boxes import box_cxcywh_to_xyxy

SCORES = ("sigmoid", "softmax")


def postprocess(
    pred_logits: Float[Tensor, "batch query classes"],
    pred_boxes: Float[Tensor, "batch query 4"],
    sizes: Int[Tensor, "batch 2"],
    *,
    scores: str = "sigmoid",
    num_select: int = 300,
) -> dict[str, Tensor]:
    """{"scores" (B, n), "labels" (B, n) int64, "boxes" (B, n, 4)}

    sigmoid: the n = min(num_select, Q * K) best of all pairs (query, class), best first; pair i is query i // K, class
    i % K, so that a query may appear under several classes.
    softmax: one detection a query, n = Q, in the order of the queries: the best class but the last, which means no
    object. num_select is not used.

    Args:
        pred_logits: before sigmoid or softmax.
        pred_boxes: (cx, cy, w, h), relative to the image.
        sizes: (height, width) of each original image in pixels, before resizing and padding.

    Returns:
        boxes as (x1, y1, x2, y2) in pixels, (x, y) from the upper left corner, not clamped to the image. Scores and
        boxes in the dtype of pred_logits and pred_boxes, computed in float32 or wider; bfloat16 knows pixels beyond
        256 only by twos, fours and eights, so predictions of such models are better converted before.

    Raises:
        ValueError: scores is unknown, num_select is below 1, there is no class beside no object, or a shape is wrong.
        TypeError: sizes are not whole numbers, or logits or boxes are not floating.
    """
    _check(pred_logits, pred_boxes, sizes)
    if scores not in SCORES:
        raise ValueError(f"scores must be one of {SCORES}, got {scores!r}")
    logits = pred_logits.to(torch.promote_types(pred_logits.dtype, torch.float32))
    if scores == "sigmoid":
        score, label, query = _best_pairs(logits, num_select)
    else:
        score, label, query = _best_class_of_each_query(logits)
    boxes = _on_the_image(pred_boxes, sizes)
    return {
        "scores": score.to(pred_logits.dtype),
        "labels": label,
        "boxes": boxes.gather(1, query[..., None].expand(-1, -1, 4)).to(pred_boxes.dtype),
    }


def _best_pairs(logits: Float[Tensor, "batch query classes"], num_select: int) -> tuple[Tensor, Tensor, Tensor]:
    if num_select < 1:
        raise ValueError(f"num_select must be at least 1, got {num_select}")
    queries, classes = logits.shape[1:]
    logit, index = logits.flatten(1).topk(min(num_select, queries * classes), dim=1)
    return logit.sigmoid(), index % classes, index // classes


def _best_class_of_each_query(logits: Float[Tensor, "batch query classes"]) -> tuple[Tensor, Tensor, Tensor]:
    batch, queries, classes = logits.shape
    if classes < 2:
        raise ValueError(f"softmax needs a class beside no object, got pred_logits {tuple(logits.shape)}")
    score, label = logits.softmax(-1)[..., :-1].max(-1)
    return score, label, torch.arange(queries, device=logits.device).expand(batch, queries)


def _on_the_image(
    boxes: Float[Tensor, "batch query 4"], sizes: Int[Tensor, "batch 2"]
) -> Float[Tensor, "batch query 4"]:
    corners = box_cxcywh_to_xyxy(boxes.to(torch.promote_types(boxes.dtype, torch.float32)))
    height, width = sizes.unbind(-1)
    return corners * torch.stack((width, height, width, height), dim=-1)[:, None]


def _check(pred_logits: Tensor, pred_boxes: Tensor, sizes: Tensor) -> None:
    for name, tensor in (("pred_logits", pred_logits), ("pred_boxes", pred_boxes)):
        if not tensor.is_floating_point():
            raise TypeError(f"{name} must be floating, got {tensor.dtype}")
    if sizes.is_floating_point():
        raise TypeError(f"sizes must be whole numbers of pixels, got {sizes.dtype}")
    if pred_logits.ndim != 3:
        raise ValueError(f"pred_logits must be (batch, query, class), got {tuple(pred_logits.shape)}")
    if pred_boxes.shape != (*pred_logits.shape[:2], 4):
        raise ValueError(
            f"pred_boxes must be (batch, query, 4) = {(*pred_logits.shape[:2], 4)}, got {tuple(pred_boxes.shape)}"
        )
    if sizes.shape != (len(pred_logits), 2):
        raise ValueError(
            f"sizes must be (batch, 2) = {(len(pred_logits), 2)}, with (height, width), got {tuple(sizes.shape)}"
        )
