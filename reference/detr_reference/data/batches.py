"""Images of different sizes as one batch: padded on the right and at the bottom, with a mask that says where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from detr_reference.data.sample import Sample
from detr_reference.losses.batch_targets import BatchTargets
from detr_reference.losses.boxes import box_xyxy_to_cxcywh


class Batch(NamedTuple):
    """What a model is given, and what it should find.

    Attributes:
        images: zero where padded.
        mask: True = padding.
        targets: boxes relative to each image's own size, not to the padded one.
        image_ids: as in the annotations.
        original_sizes: (height, width) on disk.
    """

    images: Float[Tensor, "batch 3 height width"]
    mask: Bool[Tensor, "batch height width"]
    targets: BatchTargets
    image_ids: Int[Tensor, " batch"]
    original_sizes: Int[Tensor, "batch 2"]

    def to(self, device: torch.device | str) -> Batch:
        """The same on a device."""
        return Batch(
            self.images.to(device, non_blocking=True),
            self.mask.to(device, non_blocking=True),
            BatchTargets(*(part.to(device, non_blocking=True) for part in self.targets)),
            self.image_ids.to(device, non_blocking=True),
            self.original_sizes.to(device, non_blocking=True),
        )


def collate(samples: Sequence[Sample]) -> Batch:
    """The batch of these images, as large as the highest and the widest of them.

    Raises:
        ValueError: there are no images.
    """
    if not samples:
        raise ValueError("a batch needs at least one image")
    height, width = (max(sample.size[axis] for sample in samples) for axis in (0, 1))
    images = torch.zeros(len(samples), 3, height, width)
    mask = torch.ones(len(samples), height, width, dtype=torch.bool)
    for number, sample in enumerate(samples):
        own_height, own_width = sample.size
        images[number, :, :own_height, :own_width] = sample.image
        mask[number, :own_height, :own_width] = False
    return Batch(
        images,
        mask,
        BatchTargets(
            labels=torch.cat([sample.labels for sample in samples]),
            boxes=torch.cat([relative_boxes(sample) for sample in samples]),
            counts=torch.tensor([len(sample.labels) for sample in samples]),
        ),
        image_ids=torch.tensor([sample.image_id for sample in samples]),
        original_sizes=torch.tensor([sample.original_size for sample in samples]),
    )


def relative_boxes(sample: Sample) -> Float[Tensor, "box 4"]:
    """(cx, cy, w, h), relative to the image."""
    height, width = sample.size
    return box_xyxy_to_cxcywh(sample.boxes) / torch.tensor([width, height, width, height])
