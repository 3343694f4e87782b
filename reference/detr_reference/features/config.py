"""Sizes of the backbone and of the neck."""

from __future__ import annotations

from dataclasses import dataclass

from detr_reference.every_block.config_checks import check_sizes

STAGES = 4
EXPANSION = 4  # a bottleneck gives out this many times the channels it works in


@dataclass(frozen=True)
class ResNetConfig:
    """Sizes of a ResNet; the defaults are ResNet-50's.

    Args:
        blocks: the number of bottlenecks of each of the four stages; (3, 4, 23, 3) is ResNet-101.
        width: channels of the stem; stage s works in width * 2^(s-1) channels and gives out four times as many.
        out_stages: the stages, 1 to 4, whose features are returned, in rising order.
        dilation: whether the last stage looks twice as far instead of halving the map (DETR-DC5).
        frozen_stages: how many stages are not trained, the stem with the first of them; 0 trains everything.

    Raises:
        ValueError: a number is out of range, or out_stages do not rise.
    """

    blocks: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64
    out_stages: tuple[int, ...] = (4,)
    dilation: bool = False
    frozen_stages: int = 1

    def __post_init__(self) -> None:
        check_sizes(self, "width")
        if len(self.blocks) != STAGES or min(self.blocks) < 1:
            raise ValueError(f"blocks must be {STAGES} numbers from 1 up, one for each stage, got {self.blocks}")
        stages = self.out_stages
        if not stages or list(stages) != sorted(set(stages)) or not set(stages) <= set(range(1, STAGES + 1)):
            raise ValueError(f"out_stages must be rising numbers from 1 to {STAGES}, got {stages}")
        if not 0 <= self.frozen_stages <= STAGES:
            raise ValueError(f"frozen_stages must lie between 0 and {STAGES}, got {self.frozen_stages}")

    @property
    def channels(self) -> tuple[int, ...]:
        """Of the features of each of out_stages."""
        return tuple(self.width * 2 ** (stage - 1) * EXPANSION for stage in self.out_stages)


@dataclass(frozen=True)
class ChannelMapperConfig:
    """Sizes of the channel mapper; the defaults are those of a ResNet-50 with four levels.

    Args:
        in_channels: of the backbone's feature maps, from fine to coarse.
        embed_dim: channels of every level.
        num_outs: L, the number of levels, at least as many as there are feature maps.
        num_groups: of the group norms; divides embed_dim.

    Raises:
        ValueError: a size is below 1, there are more maps than levels, or the groups do not divide the channels.
    """

    in_channels: tuple[int, ...] = (512, 1024, 2048)
    embed_dim: int = 256
    num_outs: int = 4
    num_groups: int = 32

    def __post_init__(self) -> None:
        check_sizes(self, "embed_dim", "num_outs", "num_groups")
        if not self.in_channels or min(self.in_channels) < 1:
            raise ValueError(f"in_channels must be numbers from 1 up, got {self.in_channels}")
        if self.num_outs < len(self.in_channels):
            raise ValueError(f"num_outs {self.num_outs} is less than the maps of in_channels {self.in_channels}")
        if self.embed_dim % self.num_groups:
            raise ValueError(f"num_groups must divide embed_dim, got {self.num_groups} and {self.embed_dim}")
