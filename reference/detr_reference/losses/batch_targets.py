"""What an annotated batch is: labels and boxes of all images end to end, and how many each image has."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class BatchTargets(NamedTuple):
    """The boxes of image 0 first, then those of image 1, and so on; any image may have none.

    Attributes:
        labels: (N,) int64, class of each box.
        boxes: (N, 4) cxcywh, relative to its image.
        counts: (B,) int64, boxes of each image; their sum is N.
    """

    labels: Int[Tensor, " box"]
    boxes: Float[Tensor, "box 4"]
    counts: Int[Tensor, " batch"]

    @property
    def starts(self) -> Int[Tensor, " batch"]:
        """Where the boxes of each image begin."""
        return self.counts.cumsum(0) - self.counts

    def of_image(self, image: int) -> tuple[Int[Tensor, " own"], Float[Tensor, "own 4"]]:
        """Labels and boxes of one image."""
        start, count = int(self.starts[image]), int(self.counts[image])
        return self.labels[start : start + count], self.boxes[start : start + count]


def targets_if_given(
    target_labels: Tensor | None,
    target_boxes: Tensor | None,
    target_counts: Tensor | None,
    *,
    batch: int,
    num_classes: int,
) -> BatchTargets | None:
    """What a model is given beside its images: all three tensors, or none of them.

    Raises:
        ValueError: only some are given, or they do not fit, see `batch_targets`.
        TypeError: labels or counts are not int64.
    """
    if target_labels is None and target_boxes is None and target_counts is None:
        return None
    if target_labels is None or target_boxes is None or target_counts is None:
        given = {"target_labels": target_labels, "target_boxes": target_boxes, "target_counts": target_counts}
        missing = ", ".join(name for name, tensor in given.items() if tensor is None)
        raise ValueError(f"target_labels, target_boxes and target_counts belong together; missing: {missing}")
    return batch_targets(target_labels, target_boxes, target_counts, batch=batch, num_classes=num_classes)


def batch_targets(
    target_labels: Tensor, target_boxes: Tensor, target_counts: Tensor, *, batch: int, num_classes: int
) -> BatchTargets:
    """The three tensors as one, once they fit each other and the predictions.

    Args:
        target_labels: class of every box, image after image, (box,).
        target_boxes: (x, y, w, h) of every box, (box, 4).
        target_counts: the number of boxes of each image, (batch,).

    Raises:
        ValueError: shapes or counts disagree, or a label is not in [0, num_classes). A negative label would silently
            be another class, one beyond the end an assertion without a message on a GPU.
        TypeError: labels or counts are not int64.
    """
    for name, tensor in (("target_labels", target_labels), ("target_counts", target_counts)):
        if tensor.dtype != torch.int64:
            raise TypeError(f"{name} must be int64, got {tensor.dtype}")
    if target_counts.shape != (batch,):
        raise ValueError(f"target_counts must be (batch,) = ({batch},), got {tuple(target_counts.shape)}")
    if (target_counts < 0).any():
        raise ValueError(f"target_counts must not be negative, got {target_counts.tolist()}")
    boxes = int(target_counts.sum())
    if target_labels.shape != (boxes,) or target_boxes.shape != (boxes, 4):
        raise ValueError(
            f"target_counts {target_counts.tolist()} ask for {boxes} labels and boxes, got target_labels "
            f"{tuple(target_labels.shape)} and target_boxes {tuple(target_boxes.shape)}"
        )
    outside = (target_labels < 0) | (target_labels >= num_classes)
    if outside.any():
        place = int(outside.nonzero()[0])
        raise ValueError(
            f"target_labels[{place}] is {int(target_labels[place])}, but classes are numbered from 0 to "
            f"{num_classes - 1}"
        )
    return BatchTargets(target_labels, target_boxes, target_counts)
