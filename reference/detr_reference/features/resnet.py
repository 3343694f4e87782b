"""ResNet with bottleneck blocks, the backbone of the published detectors.

Source: Deep Residual Learning, arXiv:1512.03385, section 3.3 and table 1; read with torchvision, models/resnet.py,
whose parameter names and stride placement ("v1.5": on the 3 x 3 convolution) are kept, and facebookresearch/detr,
models/backbone.py (what is frozen, and the dilated last stage).
"""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor, nn

from detr_reference.every_block.parameters import with_parameters
from detr_reference.features.backbone import Backbone
from detr_reference.features.config import EXPANSION, STAGES, ResNetConfig
from detr_reference.features.frozen_batch_norm import FrozenBatchNorm


class Bottleneck(nn.Module):
    """out = relu(shortcut(x) + bn3(conv3(relu(bn2(conv2(relu(bn1(conv1(x)))))))))

    Parameters (width w, c channels of x), all convolutions without bias:
        conv1: 1 x 1, c -> w; conv2: 3 x 3 with the stride and the dilation, w -> w; conv3: 1 x 1, w -> 4w.
        downsample.0, downsample.1: 1 x 1 convolution with the stride and its norm, where x has not the shape of out;
            elsewhere the shortcut is the identity.
    Buffers: those of bn1, bn2, bn3 and downsample.1.
    """

    def __init__(self, channels: int, width: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        wide = width * EXPANSION
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = FrozenBatchNorm(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = FrozenBatchNorm(width)
        self.conv3 = nn.Conv2d(width, wide, 1, bias=False)
        self.bn3 = FrozenBatchNorm(wide)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or channels != wide:
            self.downsample = nn.Sequential(nn.Conv2d(channels, wide, 1, stride, bias=False), FrozenBatchNorm(wide))

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch wide rows columns"]:
        """The features after the block."""
        out = self.bn1(self.conv1(x)).relu()
        out = self.bn2(self.conv2(out)).relu()
        out = self.bn3(self.conv3(out))
        return (self.downsample(x) + out).relu()


class ResNet(Backbone):
    """stem: 7 x 7 convolution, norm, relu, 3 x 3 max pooling, to a quarter of the size; then four stages

    Stage 1 keeps the size, each later one halves it: strides 4, 8, 16, 32, rounded up. With dilation stage 4 keeps that
    of stage 3, and its 3 x 3 convolutions from the second block on read every other cell.

    Parameters, under torchvision's names: conv1, layer{s}.{i}, see `Bottleneck`. Buffers: bn1 and those of the blocks.
    """

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.config = config
        self.channels = config.channels
        self.conv1 = nn.Conv2d(3, config.width, 7, stride=2, padding=3, bias=False)
        self.bn1 = FrozenBatchNorm(config.width)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        channels = config.width
        for stage in range(1, STAGES + 1):
            self.add_module(f"layer{stage}", _stage(config, stage, channels))
            channels = config.width * 2 ** (stage - 1) * EXPANSION
        self.reset_parameters()
        self.freeze()

    def reset_parameters(self) -> None:
        """Convolutions Kaiming-normal by their outputs; the norms are the identity but for their epsilon."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def freeze(self) -> None:
        """Take the gradients from the stem and the first frozen_stages stages."""
        if self.config.frozen_stages:
            self.conv1.requires_grad_(False)
        for stage in range(1, self.config.frozen_stages + 1):
            self.get_submodule(f"layer{stage}").requires_grad_(False)

    def forward(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> tuple[Float[Tensor, "batch _channel _rows _columns"], ...]:
        """The features of out_stages.

        Args:
            images: normalised as the parameters expect; padding, if there is any, is zero after that.

        Raises:
            ValueError: images are not (batch, 3, height, width).
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images must be (batch, 3, height, width), got {tuple(images.shape)}")
        x = self.maxpool(self.bn1(self.conv1(images)).relu())
        features = []
        for stage in range(1, max(self.config.out_stages) + 1):
            x = self.get_submodule(f"layer{stage}")(x)
            if stage in self.config.out_stages:
                features.append(x)
        return tuple(features)


def _stage(config: ResNetConfig, stage: int, channels: int) -> nn.Sequential:
    """The blocks of a stage; the first changes channels and size."""
    width = config.width * 2 ** (stage - 1)
    dilated = config.dilation and stage == STAGES
    stride = 1 if stage == 1 or dilated else 2
    first = Bottleneck(channels, width, stride)
    rest = (Bottleneck(width * EXPANSION, width, dilation=1 + dilated) for _ in range(config.blocks[stage - 1] - 1))
    return nn.Sequential(first, *rest)


def build(config: ResNetConfig, state_dict: Mapping[str, Tensor] | None = None) -> ResNet:
    """The network with copies of these parameters, on their device and in their dtype; None means initialise.

    Raises:
        RuntimeError: a parameter is missing, unknown, or of the wrong shape.
    """
    return with_parameters(ResNet(config), state_dict)
