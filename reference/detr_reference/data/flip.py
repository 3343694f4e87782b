"""Mirroring an image."""

from __future__ import annotations

from dataclasses import replace

import torch

from detr_reference.data.sample import Sample


def flip(sample: Sample) -> Sample:
    """Left and right exchanged: x becomes width - x."""
    width = sample.size[1]
    x1, y1, x2, y2 = sample.boxes.unbind(-1)
    return replace(sample, image=sample.image.flip(-1), boxes=torch.stack((width - x2, y1, width - x1, y2), dim=-1))
