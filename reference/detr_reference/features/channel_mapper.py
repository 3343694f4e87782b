"""The neck of Deformable DETR and DINO: feature maps of a backbone, all brought to the same channels.

Source: Deformable DETR, arXiv:2010.04159, appendix A.2; read with fundamentalvision/Deformable-DETR,
models/deformable_detr.py (`input_proj`), and detrex, modeling/neck/channel_mapper.py, whose parameter names are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jaxtyping import Float
from torch import Tensor, nn

from detr_reference.every_block.parameters import with_parameters
from detr_reference.features.config import ChannelMapperConfig


class ConvNorm(nn.Module):
    """out = norm(conv(x))

    Parameters:
        conv: an nn.Conv2d with bias.
        norm: an nn.GroupNorm.
    """

    def __init__(self, channels: int, config: ChannelMapperConfig, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, config.embed_dim, kernel, stride, padding=kernel // 2)
        self.norm = nn.GroupNorm(config.num_groups, config.embed_dim)

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch embed rows columns"]:
        """The mapped features."""
        return self.norm(self.conv(x))


class ChannelMapper(nn.Module):
    """level_l = norm(1 x 1 conv(map_l)); a further level = norm(3 x 3 conv of stride 2 (the one before))

    The first further level reads the backbone's last map, not the level made of it. Group norms see a whole map with
    its padding, so that how much an image is padded has an influence, if a small one, on all its features.

    Parameters:
        convs.{l}: `ConvNorm`, one for each of the backbone's maps.
        extra_convs.{k}: `ConvNorm`, the further levels.
    """

    def __init__(self, config: ChannelMapperConfig) -> None:
        super().__init__()
        self.config = config
        self.convs = nn.ModuleList(ConvNorm(channels, config, kernel=1, stride=1) for channels in config.in_channels)
        before = [config.in_channels[-1]] + [config.embed_dim] * (config.num_outs - len(config.in_channels))
        self.extra_convs = nn.ModuleList(ConvNorm(channels, config, kernel=3, stride=2) for channels in before[:-1])
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Convolutions Xavier-uniform, their biases zero; the norms keep PyTorch's initialisation."""
        for module in self.modules():
            if isinstance(module, ConvNorm):
                nn.init.xavier_uniform_(module.conv.weight)
                nn.init.zeros_(module.get_parameter("conv.bias"))

    def forward(
        self, maps: Sequence[Float[Tensor, "batch _channel _height _width"]]
    ) -> tuple[Float[Tensor, "batch embed _rows _columns"], ...]:
        """The levels, from fine to coarse.

        Args:
            maps: the backbone's features, in the order of in_channels.

        Raises:
            ValueError: there are more or fewer maps than in_channels, or one has other channels.
        """
        channels = tuple(each.shape[1] for each in maps)
        if channels != self.config.in_channels:
            raise ValueError(f"maps must have the channels {self.config.in_channels}, got {channels}")
        levels = [conv(each) for conv, each in zip(self.convs, maps, strict=True)]
        before = maps[-1]
        for conv in self.extra_convs:
            before = conv(before)
            levels.append(before)
        return tuple(levels)


def build(config: ChannelMapperConfig, state_dict: Mapping[str, Tensor] | None = None) -> ChannelMapper:
    """The neck with copies of these parameters, on their device and in their dtype; None means initialise.

    Raises:
        RuntimeError: a parameter is missing, unknown, or of the wrong shape.
    """
    return with_parameters(ChannelMapper(config), state_dict)
