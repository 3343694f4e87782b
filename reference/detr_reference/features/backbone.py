"""What a detector asks of its backbone, so that one can be exchanged for another."""

from __future__ import annotations

from torch import nn


class Backbone(nn.Module):
    """maps = backbone(images): a tuple of feature maps, (batch, channel, rows, columns), from fine to coarse

    Attributes:
        channels: of each of the maps.
    """

    channels: tuple[int, ...]
