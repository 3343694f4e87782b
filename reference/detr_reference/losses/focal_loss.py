"""Focal loss of independent classes: easy examples, which are nearly all, weigh little.

Source: Focal Loss for Dense Object Detection, arXiv:1708.02002, equation 5; read with fundamentalvision/
Deformable-DETR, models/segmentation.py (`sigmoid_focal_loss`), and detrex, modeling/criterion/criterion.py. The public
functions divide by the number of boxes after a mean over queries and multiply by the number of queries outside; here
there is one sum. Clauses: spec chapter 14.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def sigmoid_focal_loss(
    logits: Float[Tensor, "*token classes"],
    targets: Float[Tensor, "*token classes"],
    num_boxes: Float[Tensor, ""],
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> Float[Tensor, ""]:
    """loss = sum of a (1 - p)^gamma (-log p) / num_boxes, over all elements

    p is the probability of the right answer: sigmoid(logit) with a = alpha where the target is 1, 1 - sigmoid(logit)
    with a = 1 - alpha where it is 0.

    Args:
        logits: of each class by itself.
        targets: 1 where the class is present, otherwise 0; a constant, without a gradient.
        num_boxes: what to divide by, above 0: the caller's normaliser.
        alpha: weight of the positive elements, those of the others is 1 - alpha.
        gamma: how fast an element loses weight as p grows; 0 is cross-entropy.

    Returns:
        a scalar in the dtype of logits, computed in float32 or wider. However large a logit, its share of the loss is
        finite, and so is its gradient: with s the logit that speaks against the right answer, -log p is
        -log sigmoid(-s), and (1 - p)^gamma is exp(gamma log sigmoid(s)), whose derivative does not divide by 1 - p.

    Raises:
        ValueError: the shapes differ, num_boxes is not a scalar, alpha lies outside [0, 1], gamma is negative, or a
            target is neither 0 nor 1; the last is not seen inside torch.compile and torch.export.
        TypeError: logits are not floating.
    """
    _check(logits, targets, num_boxes, alpha, gamma)
    wide = torch.promote_types(logits.dtype, torch.float32)
    positive = targets == 1
    against = torch.where(positive, -logits.to(wide), logits.to(wide))
    loss = (gamma * F.logsigmoid(against)).exp() * -F.logsigmoid(-against)
    weighted = torch.where(positive, alpha * loss, (1 - alpha) * loss)
    return (weighted.sum() / num_boxes.to(wide)).to(logits.dtype)


def _check(logits: Tensor, targets: Tensor, num_boxes: Tensor, alpha: float, gamma: float) -> None:
    if not logits.is_floating_point():
        raise TypeError(f"logits must be floating, got {logits.dtype}")
    if logits.shape != targets.shape:
        raise ValueError(f"logits {tuple(logits.shape)} and targets {tuple(targets.shape)} must have the same shape")
    if num_boxes.ndim != 0:
        raise ValueError(f"num_boxes must be a scalar, got {tuple(num_boxes.shape)}")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must lie between 0 and 1, got {alpha}")
    if gamma < 0:
        raise ValueError(f"gamma must not be negative, got {gamma}")
    if not torch.compiler.is_compiling():
        others = targets[(targets != 0) & (targets != 1)]
        if others.numel():
            raise ValueError(f"targets must be 0 or 1, got {others[0].item()} and {others.numel() - 1} more")
