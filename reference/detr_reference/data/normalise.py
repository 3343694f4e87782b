"""Colours as pretrained backbones expect them."""

from __future__ import annotations

from dataclasses import replace

import torch

from detr_reference.data.sample import Sample

# Of ImageNet's images, RGB in [0, 1]; torchvision's and with them all published detectors of this package use these.
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)


def normalise(sample: Sample) -> Sample:
    """(image - mean) / standard deviation, by channel; padding that comes later is zero, the mean colour."""
    mean, deviation = torch.tensor(MEAN)[:, None, None], torch.tensor(DEVIATION)[:, None, None]
    return replace(sample, image=(sample.image - mean) / deviation)
