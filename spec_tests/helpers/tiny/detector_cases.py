"""Tiny detectors with every number perturbed, and images of a batch that are padded differently."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor, nn

from detr_reference.features.backbone import Backbone

Model = TypeVar("Model", bound=nn.Module)

TINY_BACKBONE = {"backbone_blocks": (1, 2, 1, 1), "backbone_width": 4}
TINY = {
    "num_classes": 3,
    "num_queries": 5,
    "embed_dim": 8,
    "num_heads": 2,
    "feedforward_dim": 12,
    "num_encoder_layers": 2,
    "num_decoder_layers": 3,
    **TINY_BACKBONE,
}


def scrambled(model: Model) -> Model:
    """In float64 and evaluation mode, no parameter and no statistic as it was: initial ones hide most defects."""
    model = model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            fan_in = max(parameter[0].numel(), 1) if parameter.ndim > 1 else 4
            parameter.add_(torch.randn_like(parameter) / fan_in**0.5)
        for name, buffer in model.named_buffers():
            if name.endswith("running_var"):
                buffer.copy_(torch.rand_like(buffer) + 0.5)
            elif buffer.is_floating_point():
                buffer.add_(torch.randn_like(buffer) * 0.2)
    return model


def padded_images(height: int = 96, width: int = 160) -> tuple[Tensor, Tensor]:
    """Two images of (96, 128) and (64, 160) pixels on one canvas, zero where padded, and their mask."""
    images = torch.randn(2, 3, height, width, dtype=torch.float64)
    mask = torch.zeros(2, height, width, dtype=torch.bool)
    mask[0, 96:] = mask[0, :, 128:] = mask[1, 64:] = mask[1, :, 160:] = True
    return images.masked_fill(mask[:, None], 0), mask


def on_larger_canvas(images: Tensor, mask: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """The same images with more padding on the right and at the bottom."""
    room = (0, width - images.shape[-1], 0, height - images.shape[-2])
    return nn.functional.pad(images, room), nn.functional.pad(mask, room, value=True)


def theirs_of(family: str, **sizes: object) -> nn.Module:
    """A model of transformers with the sizes of TINY; what is particular to the family is given."""
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{family}Config")(
        use_timm_backbone=False,
        backbone_config=transformers.ResNetConfig(
            embedding_size=4, hidden_sizes=[16, 32, 64, 128], depths=[1, 2, 1, 1], out_features=["stage4"]
        ),
        encoder_layers=2,
        decoder_layers=3,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=12,
        decoder_ffn_dim=12,
        num_labels=3,
        **{"num_queries": 5, **sizes},
    )
    return scrambled(getattr(transformers, f"{family}ForObjectDetection")(config))


def builds_copies(build: Callable[..., nn.Module], config: Any, source: nn.Module, dtype: torch.dtype) -> None:
    """What is built from a state dict computes what its source does, in its dtype, and shares no memory with it."""
    source, (images, mask) = source.to(dtype), padded_images()
    state = source.state_dict()
    built = build(config, state).eval()
    found, expected = built(images.to(dtype), mask), source(images.to(dtype), mask)
    for name in expected:
        assert torch.equal(found[name], expected[name])
        assert found[name].dtype == dtype
    assert all(value.data_ptr() != state[name].data_ptr() for name, value in built.state_dict().items())


class Patches(Backbone):
    """A backbone whose cells see 32 x 32 pixels each and nothing of each other's."""

    channels = (7,)

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 7, kernel_size=32, stride=32)

    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (self.conv(images),)
