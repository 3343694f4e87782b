"""Resizing an image to a length of its shorter side, as far as the longer one allows.

Source: facebookresearch/detr, datasets/transforms.py (`resize`).
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F

from detr_reference.data.sample import Sample


def resized_size(size: tuple[int, int], shorter: int, longest: int | None = None) -> tuple[int, int]:
    """(height, width) with a shorter side of `shorter`, or less where the longer one would exceed `longest`.

    The aspect ratio is kept but for rounding, as published: `shorter` is lowered to the nearest whole number (Python's
    `round`, halves to even), and the longer side is then rounded down. It may so exceed `longest` by a little, where
    `shorter` was rounded up. Only what is published as a side of 0, for an extremely narrow image, is 1 here, and
    `longest` beside it.
    """
    height, width = size
    low, high = min(size), max(size)
    longer = int(shorter * high / low)
    if longest is not None and high / low * shorter > longest:
        shorter = round(longest * low / high)
        shorter, longer = (shorter, int(shorter * high / low)) if shorter else (1, longest)
    return (shorter, longer) if height <= width else (longer, shorter)


def resize(sample: Sample, shorter: int, longest: int | None = None) -> Sample:
    """The image at `resized_size`, bilinear with antialiasing, and its boxes scaled by what each side really changed.

    By torch's interpolation: published code resizes bytes with Pillow, which is the same filter, and rounds to bytes
    each time. Here transforms are functions of float tensors alone, and nothing is rounded between two resizes.
    """
    height, width = resized_size(sample.size, shorter, longest)
    if (height, width) == sample.size:
        return sample
    image = F.interpolate(sample.image[None], (height, width), mode="bilinear", align_corners=False, antialias=True)[0]
    across, down = width / sample.size[1], height / sample.size[0]
    return replace(sample, image=image, boxes=sample.boxes * torch.tensor([across, down, across, down]))
