"""Batch normalisation with statistics that never change: a fixed scale and shift for every channel.

Source: Batch Normalization, arXiv:1502.03167, algorithm 2; read with facebookresearch/detr, models/backbone.py
(FrozenBatchNorm2d), and torchvision, ops/misc.py (FrozenBatchNorm2d).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

EPSILON = 1e-5  # added to the variance, as in training


class FrozenBatchNorm(nn.Module):
    """out = (x - running_mean) / sqrt(running_var + 1e-5) * weight + bias

    The detectors train with one or two images a device, too few for statistics of their own. All four vectors are
    buffers: they are saved and loaded, and no optimiser sees them. Training mode changes nothing.

    Buffers, each (channels,): weight, bias, running_mean, running_var.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch channel height width"]:
        """Each channel scaled and shifted."""
        scale = self.weight * (self.running_var + EPSILON).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * scale[:, None, None] + shift[:, None, None]
