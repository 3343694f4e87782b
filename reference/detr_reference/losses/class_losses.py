"""The classification losses: focal (Deformable DETR, DINO) and cross entropy with a "no object" class (DETR).

Source: DETR, arXiv:2005.12872, section 3.1; focal loss, arXiv:1708.02002, as in Deformable DETR, arXiv:2010.04159;
read with facebookresearch/detr, models/detr.py (`loss_labels`), and IDEA-Research/DINO, models/dino/dino.py. Clauses:
spec chapter 15.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from detr_reference.losses.focal_loss import sigmoid_focal_loss


def query_classes(
    pairs: dict[str, Int[Tensor, " pair"]], pair_labels: Int[Tensor, " pair"], batch: int, queries: int, background: int
) -> Int[Tensor, "batch query"]:
    """The label of a query's target; `background` where it has none."""
    classes = torch.full((batch, queries), background, dtype=torch.int64, device=pair_labels.device)
    classes[pairs["image"], pairs["query"]] = pair_labels
    return classes


def focal_class_loss(
    logits: Float[Tensor, "*query class"],
    classes: Int[Tensor, "*query"],
    num_boxes: Float[Tensor, ""],
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> Float[Tensor, ""]:
    """sum of the focal losses of all queries and classes / num_boxes

    Each class is a binary question of its own; a query of class K, one beyond the last, answers no to all of them.
    """
    is_class = classes[..., None] == torch.arange(logits.shape[-1], device=classes.device)
    yes = torch.zeros_like(logits).masked_fill(is_class, 1.0)
    return sigmoid_focal_loss(logits, yes, num_boxes, alpha=alpha, gamma=gamma)


def cross_entropy_class_loss(
    logits: Float[Tensor, "*query class"], classes: Int[Tensor, "*query"], *, no_object_weight: float = 0.1
) -> Float[Tensor, ""]:
    """sum w_c (-log softmax(logits)[c]) / sum w_c,  w_c = no_object_weight of the last class and 1 of the others

    A weighted mean over the queries of this process, whatever the number of boxes. Of no queries it is 0.
    """
    no_object = classes == logits.shape[-1] - 1
    surprise = -logits.log_softmax(-1).gather(-1, classes[..., None])[..., 0]
    weights = torch.ones_like(surprise).masked_fill(no_object, no_object_weight)
    return (weights * surprise).sum() / weights.sum().clamp(min=torch.finfo(logits.dtype).tiny)
