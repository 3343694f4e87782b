"""Boxes: conversion between centre and corners, and how much two of them overlap.

Boxes are (cx, cy, w, h) where a network predicts them, (x1, y1, x2, y2) with x1 <= x2 and y1 <= y2 where they are
compared. Nothing here asks for a unit: pixels and shares of the image give the same overlaps, up to `eps`.

Source: Generalized Intersection over Union, arXiv:1902.09630, algorithm 1; read with facebookresearch/detr,
util/box_ops.py, and detrex, detrex/utils/misc.py and layers/box_ops.py. Clauses: spec chapter 14.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def box_cxcywh_to_xyxy(boxes: Float[Tensor, "*box 4"]) -> Float[Tensor, "*box 4"]:
    """(x1, y1, x2, y2) = (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), in the dtype of boxes"""
    _check_form("boxes", boxes)
    centre, size = boxes[..., :2], boxes[..., 2:]
    return torch.cat((centre - size / 2, centre + size / 2), dim=-1)


def box_xyxy_to_cxcywh(boxes: Float[Tensor, "*box 4"]) -> Float[Tensor, "*box 4"]:
    """(cx, cy, w, h) = ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1), in the dtype of boxes"""
    _check_form("boxes", boxes)
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat(((low + high) / 2, high - low), dim=-1)


def box_iou(
    boxes1: Float[Tensor, "one 4"], boxes2: Float[Tensor, "other 4"], *, eps: float = 0.0
) -> Float[Tensor, "one other"]:
    """iou[i, j] = |A & B| / (|A | B| + eps), A = boxes1[i], B = boxes2[j]

    Arguments, precision and errors as in `generalized_box_iou`; two boxes without area have 0.
    """
    first, second, dtype = _pairs(boxes1, boxes2)
    intersection, union = _intersection_and_union(first, second)
    return _quotient(intersection, union + eps).to(dtype)


def generalized_box_iou(
    boxes1: Float[Tensor, "one 4"], boxes2: Float[Tensor, "other 4"], *, eps: float = 0.0
) -> Float[Tensor, "one other"]:
    """giou[i, j] = |A & B| / (|A | B| + eps) - (|C| - |A | B|) / (|C| + eps), A = boxes1[i], B = boxes2[j]

    C is the hull, the smallest box around both. The second term is the share of C that neither box covers; it grows as
    the boxes move apart, so that boxes without common area have a gradient too.

    Args:
        boxes1, boxes2: (x1, y1, x2, y2), in any unit, both in the same one.
        eps: added to both denominators, in squared units; 1e-6 in DINO and detrex, where a perfect box of side 0.001
            has 0.5.

    Returns:
        within [-1, 1], in the dtype of the boxes. It is computed in float32 or wider: the area of 300 x 300 pixels is
        no number of float16. A quotient 0 / 0 counts as 0: two boxes without area have at most 0, also where they are
        the same.

    Raises:
        ValueError: a box is upside down or NaN (x1 <= x2 and y1 <= y2 do not hold), or a shape is wrong. The former
            is not seen inside torch.compile and torch.export.
        TypeError: boxes are not floating.
    """
    first, second, dtype = _pairs(boxes1, boxes2)
    return _generalized_iou(first, second, eps).to(dtype)


def paired_generalized_box_iou(
    boxes1: Float[Tensor, "pair 4"], boxes2: Float[Tensor, "pair 4"], *, eps: float = 0.0
) -> Float[Tensor, " pair"]:
    """The diagonal of `generalized_box_iou`: giou[i] of boxes1[i] and boxes2[i], without the other pairs.

    Raises:
        ValueError: as there, or the numbers of boxes differ.
        TypeError: as there.
    """
    if boxes1.shape != boxes2.shape:
        raise ValueError(f"boxes1 {tuple(boxes1.shape)} and boxes2 {tuple(boxes2.shape)} must hold as many boxes")
    first, second, dtype = _wide(boxes1, boxes2)
    return _generalized_iou(first, second, eps).to(dtype)


def _generalized_iou(first: Tensor, second: Tensor, eps: float) -> Tensor:
    intersection, union = _intersection_and_union(first, second)
    low = torch.minimum(first[..., :2], second[..., :2])
    high = torch.maximum(first[..., 2:], second[..., 2:])
    hull = _area(low, high)
    return _quotient(intersection, union + eps) - _quotient(hull - union, hull + eps)


def _intersection_and_union(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    low = torch.maximum(first[..., :2], second[..., :2])
    high = torch.minimum(first[..., 2:], second[..., 2:])
    intersection = _area(low, torch.maximum(low, high))
    areas = _area(first[..., :2], first[..., 2:]) + _area(second[..., :2], second[..., 2:])
    return intersection, areas - intersection


def _area(low: Tensor, high: Tensor) -> Tensor:
    width, height = (high - low).unbind(-1)
    return width * height


def _quotient(numerator: Tensor, denominator: Tensor) -> Tensor:
    """0 / 0 is 0, and without a gradient: a NaN there would reach every parameter of a model."""
    undefined = denominator == 0
    return numerator.masked_fill(undefined, 0.0) / denominator.masked_fill(undefined, 1.0)


def _pairs(boxes1: Tensor, boxes2: Tensor) -> tuple[Tensor, Tensor, torch.dtype]:
    """Every box of the first with every box of the second."""
    first, second, dtype = _wide(boxes1, boxes2)
    return first[:, None], second[None], dtype


def _wide(boxes1: Tensor, boxes2: Tensor) -> tuple[Tensor, Tensor, torch.dtype]:
    """The boxes in float32 or wider, and the dtype of the result."""
    for name, boxes in (("boxes1", boxes1), ("boxes2", boxes2)):
        _check_form(name, boxes)
        if boxes.ndim != 2:
            raise ValueError(f"{name} must be (box, 4), got {tuple(boxes.shape)}")
        _check_corners(name, boxes)
    dtype = torch.promote_types(boxes1.dtype, boxes2.dtype)
    wide = torch.promote_types(dtype, torch.float32)
    return boxes1.to(wide), boxes2.to(wide), dtype


def _check_form(name: str, boxes: Tensor) -> None:
    if not boxes.is_floating_point():
        raise TypeError(f"{name} must be floating, got {boxes.dtype}")
    if boxes.ndim == 0 or boxes.shape[-1] != 4:
        raise ValueError(f"{name} must be (..., 4), got {tuple(boxes.shape)}")


def _check_corners(name: str, boxes: Tensor) -> None:
    if torch.compiler.is_compiling():
        return
    right = (boxes[:, 2:] >= boxes[:, :2]).all(-1)
    if not right.all():
        index = right.tolist().index(False)
        raise ValueError(
            f"{name}[{index}] = {boxes[index].tolist()} is not (x1, y1, x2, y2) with x1 <= x2 and y1 <= y2; "
            "boxes as centre and size go through box_cxcywh_to_xyxy first"
        )
