"""Cutting a part out of an image.

Source: facebookresearch/detr, datasets/transforms.py (`crop`, `RandomSizeCrop`).
"""

from __future__ import annotations

from dataclasses import replace

import torch

from detr_reference.data.sample import Sample


def crop(sample: Sample, top: int, left: int, height: int, width: int) -> Sample:
    """The part of the image; boxes are clipped to it, and those of which nothing is left are dropped.

    Raises:
        ValueError: the part is empty or not within the image.
    """
    if not (top >= 0 and left >= 0 and 0 < height <= sample.size[0] - top and 0 < width <= sample.size[1] - left):
        part = f"top {top}, left {left}, height {height}, width {width}"
        raise ValueError(f"no part of an image of (height, width) {sample.size}: {part}")
    boxes = sample.boxes - torch.tensor([left, top, left, top])
    boxes = torch.stack(
        (
            boxes[:, 0].clamp(0, width),
            boxes[:, 1].clamp(0, height),
            boxes[:, 2].clamp(0, width),
            boxes[:, 3].clamp(0, height),
        ),
        dim=-1,
    )
    left_over = (boxes[:, 2:] > boxes[:, :2]).all(-1)
    image = sample.image[:, top : top + height, left : left + width]
    return replace(sample, image=image, boxes=boxes[left_over], labels=sample.labels[left_over])
